"""The discriminator of StackGAN's first stage, which judges pairs alone.

Han Zhang et al. StackGAN. ICCV 2017. https://arxiv.org/abs/1612.03242, and StackGAN++. TPAMI 2018.
https://arxiv.org/abs/1710.10916. Their other discriminators are AttnGAN's `Discriminator`, which comes from them.
"""

from mmbench.networks.attngan import Discriminator


class ConditionalDiscriminator(Discriminator):
    """As `Discriminator`, but without a judgement of images alone: it has `forward` and `conditional`."""

    def __init__(self, image_size: int, width: int, embedding_dim: int) -> None:
        super().__init__(image_size, width, embedding_dim)
        del self.alone
