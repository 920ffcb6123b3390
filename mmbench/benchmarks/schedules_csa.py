"""CSA's schedule, after the authors' training loop.

VGG looks at the true image twice, and at all images down to relu4_3, which only consistency reads, a number without a
gradient; the generators' loss leaves gradients in the discriminators.
https://github.com/KumapowerLIU/CSA-inpainting/blob/f0b07129adc6a231b7d68f9815d1adfe0c01eeff/models/CSA.py#L172
"""

import torch.nn.functional as F
from torch import Tensor

from mmbench.benchmarks.schedules import Losses, Theirs, adam
from mmbench.core.method import Batch
from mmbench.methods.inpainting.csa import CSA


class TheirsCSA(Theirs):
    method: CSA

    def __init__(self, method: CSA) -> None:
        super().__init__(method)
        names = ("discriminator", "feature_discriminator"), ("refinement", "coarse")
        self.discriminators, self.generators = (
            [adam(method, name, getattr(method, name)) for name in each] for each in names
        )

    def relative(self, above: Tensor, below: Tensor) -> Tensor:
        return (((above - below.mean() - 1) ** 2).mean() + ((below - above.mean() + 1) ** 2).mean()) / 2

    def step(self, batch: Batch) -> Losses:
        method, image = self.method, batch["image"]
        judge, feature_judge = method.discriminator, method.feature_discriminator
        target = method.vgg(image).relu4_3
        painted = method.painted(image, batch["mask"])
        refined = painted.refined
        if target.shape == refined.attended.shape:  # as published; their value is added, of which no gradient comes
            for features in (refined.attended, refined.decoded):
                F.mse_loss(features * painted.hole, target)
        made, true = method.vgg(refined.image.detach()), method.vgg(image)

        for network in (judge, feature_judge):
            network.zero_grad()
        patches = 0.5 * self.relative(judge(image), judge(refined.image.detach()))
        features = 0.5 * self.relative(feature_judge(true.pool3), feature_judge(made.pool3))
        (patches + features).backward()
        for optimizer in self.discriminators:
            optimizer.step()

        for network in (method.refinement, method.coarse):
            network.zero_grad()
        fake, fake_features = judge(refined.image), feature_judge(made.pool3)
        real, real_features = judge(image), feature_judge(true.pool3)
        terms = {
            "D_R_patch": method.lambda_adversarial * self.relative(fake, real),
            "D_R_feature": method.lambda_adversarial * self.relative(fake_features, real_features),
            "L_re_refined": method.lambda_reconstruction * F.l1_loss(refined.image, image),
            "L_re_coarse": method.lambda_reconstruction * F.l1_loss(painted.coarse, image),
        }
        sum(terms.values()).backward()
        for optimizer in self.generators:
            optimizer.step()
        judged = {"D_R_patch": patches, "D_R_feature": features}
        return {
            **{f"discriminator+feature_discriminator/{name}": loss for name, loss in judged.items()},
            **{f"coarse+refinement/{name}": term for name, term in terms.items()},
        }
