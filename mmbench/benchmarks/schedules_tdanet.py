"""TDANet's schedule, after the authors' training loop: PICNet's, with DAMSM's terms.

Matching text by text, and masks at sizes that nothing reads.
https://github.com/idealwhite/tdanet/blob/b3ea9c44c2f9a66d6b9767ae78ca8b553bda77b2/model/tdanet_model.py
"""

import torch
import torch.nn.functional as F

from mmbench.benchmarks.schedules import Losses, TheirsGuided, near
from mmbench.benchmarks.schedules_picnet import TheirsTwoPaths, named
from mmbench.core.method import Batch
from mmbench.methods.inpainting.tdanet import TDANet


class TheirsTDANet(TheirsTwoPaths, TheirsGuided):
    method: TDANet

    def step(self, batch: Batch) -> Losses:
        method = self.method
        real, keep = method.given(batch)
        reals, _ = self.scaled(real), self.scaled(keep)
        text = method.captions(batch)
        made = method.paths(method.encoder.both(real, keep, text), keep, batch["noise"])
        reconstructed, generated = made.reconstructed[-1], made.generated[-1]
        self.shown(real, keep, made)
        judged = self.train_discriminators(real, (reconstructed, reconstructed))

        terms = self.divergences(made, torch.ones_like(made.posterior.sigma))
        judge, judge_rec = self.judges
        terms["L_G_gen"] = method.lambda_gan * near(judge(generated), 1)
        terms["L_G_rec"] = method.lambda_gan * near(judge(reconstructed), 1)
        like_rec, like_real, like_gen = (judge_rec(image) for image in (reconstructed, real, generated))
        terms["L_feature_rec"] = method.lambda_gan * F.mse_loss(like_rec, like_real)
        terms["L_feature_gen"] = method.lambda_gan * F.mse_loss(like_gen, like_real)
        for path, images in (("rec", made.reconstructed), ("gen", made.generated)):
            matching = self.matching(images[-1], text, batch["class_id"])
            terms |= {f"{name}_{path}": term for name, term in matching.items()}
        terms["L1_rec"] = method.lambda_rec * sum(map(F.l1_loss, made.reconstructed, reals))
        terms["L1_gen"] = method.lambda_gen * sum(map(F.l1_loss, made.generated, reals))
        self.train_generators(terms)
        return named(("L_D", "L_D_rec"), judged, terms)
