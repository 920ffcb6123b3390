"""AttnGAN's schedule, after the authors' training loop.

Texts are matched one by one; the generator's loss leaves gradients in the discriminators, each of which has a backward
pass of its own; the average is a list of copies.
https://github.com/taoxugit/AttnGAN/blob/0d000e652b407e976cb88fab299e8566f3de8a37/code/trainer.py#L218
"""

import copy

from mmbench.benchmarks.schedules import Losses, TheirsGuided, adam, averaged
from mmbench.core.images import pyramid
from mmbench.core.method import Batch
from mmbench.methods.synthesis.attngan import AttnGAN


class TheirsAttnGAN(TheirsGuided):
    method: AttnGAN

    def __init__(self, method: AttnGAN) -> None:
        super().__init__(method)
        self.optimizers = [adam(method, "discriminators", each) for each in method.discriminators]
        self.optimizer = adam(method, "generator", method.generator)
        self.average = copy.deepcopy([parameter.data for parameter in method.generator.parameters()])

    def step(self, batch: Batch) -> Losses:
        method, losses, terms = self.method, {}, {}
        sizes = method.discriminators.sizes
        text = self.damsm.encode_text(batch["caption"], batch["noise"].streams("words"), method.guide.max_words)
        output = method.drawn(method.generator, text, batch["noise"])
        judged = list(
            zip(
                sizes,
                method.discriminators,
                pyramid(batch["image"], sizes),
                output.images,
                self.optimizers,
                strict=True,
            )
        )
        for size, discriminator, real, fake, optimizer in judged:
            discriminator.zero_grad()
            losses[f"discriminators/L_D{size}"] = self.adversarial_loss(discriminator, real, fake, text.sentence)
            losses[f"discriminators/L_D{size}"].backward()
            optimizer.step()

        method.generator.zero_grad()
        for size, discriminator, _, fake, _ in judged:
            terms[f"L_G{size}"] = self.generator_loss(discriminator, fake, text)
        terms |= self.matching(output.images[-1], text, batch["class_id"])
        terms["KL"] = -0.5 * (1 + output.log_variance - output.mu.pow(2) - output.log_variance.exp()).mean()
        sum(terms.values()).backward()
        self.optimizer.step()
        averaged(self.average, method.generator, method.ema.decay)
        return losses | {f"generator/{name}": term for name, term in terms.items()}
