"""StackGAN++'s schedule, after the authors' training loop.

Inception looks at each step's images at 299 pixels, for a score that is printed every 2,000 steps; every discriminator
has an optimiser and a backward pass of its own; the generator's loss leaves gradients in the discriminators; copies in
a list are the average. Their embeddings come from a file; here both sides have the text encoder.
https://github.com/hanzhanggit/StackGAN-v2/blob/6228e347007198940898c3d0679d9698235d3c00/code/trainer.py#L523
"""

import copy
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor
from torchvision.models import inception_v3

from mmbench.benchmarks.schedules import Losses, Theirs, adam, averaged, is_fake, is_real
from mmbench.core.images import pyramid
from mmbench.core.method import Batch
from mmbench.methods.synthesis.stackganpp import Generated, StackGANPP
from mmbench.networks.attngan import Discriminator

INCEPTION_SIZE = 299


class TheirsStackGANPP(Theirs):
    method: StackGANPP

    def __init__(self, method: StackGANPP) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, "discriminators", each) for each in method.discriminators]
        self.optimizer = adam(method, "generator", method.generator)
        self.average = copy.deepcopy([parameter.data for parameter in method.generator.parameters()])
        inception = inception_v3(weights=None, init_weights=False)
        self.inception = inception.to(next(method.parameters())).requires_grad_(False).eval()

    def probabilities(self, discriminator: Discriminator, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        alone, paired = discriminator.judge(image, condition)
        return alone.sigmoid(), paired.sigmoid()

    def train_discriminator(self, place: int, images: Sequence[Tensor], condition: Tensor) -> Tensor:
        """Of real images, those of others, and generated ones."""
        discriminator = self.method.discriminators[place]
        discriminator.zero_grad()
        judged = [self.probabilities(discriminator, image.detach(), condition.detach()) for image in images]
        (real_alone, real), (other_alone, wrong), (fake_alone, fake) = judged
        on_real = is_real(real) + is_real(real_alone)
        loss = on_real + is_fake(wrong) + is_real(other_alone) + is_fake(fake) + is_fake(fake_alone)
        loss.backward()
        self.optimizers[place].step()
        return loss

    def train_generator(self, output: Generated) -> Losses:
        method, terms = self.method, {}
        method.generator.zero_grad()
        for discriminator, size, fake in zip(method.discriminators, method.sizes, output.images, strict=True):
            alone, paired = self.probabilities(discriminator, fake, output.mu)
            terms[f"L_G{size}"] = is_real(paired) + is_real(alone)
        divergence = -0.5 * (1 + output.log_variance - output.mu.pow(2) - output.log_variance.exp()).mean()
        terms["KL"] = method.lambda_kl * divergence
        sum(terms.values()).backward()
        self.optimizer.step()
        return terms

    def step(self, batch: Batch) -> Losses:
        method, losses = self.method, {}
        real, others = (pyramid(batch[field], method.sizes) for field in ("image", "image_mismatched"))
        output = method.drawn(method.generator, method.encoded(batch["caption"]), batch["noise"])
        for place, images in enumerate(zip(real, others, output.images, strict=True)):
            loss = self.train_discriminator(place, images, output.mu)
            losses[f"discriminators/L_D{method.sizes[place]}"] = loss
        terms = self.train_generator(output)
        averaged(self.average, method.generator, method.ema.decay)
        size = (INCEPTION_SIZE, INCEPTION_SIZE)
        self.inception(F.interpolate(output.images[-1].detach(), size, mode="bilinear")).softmax(dim=1)
        return losses | {f"generator/{name}": term for name, term in terms.items()}
