"""Metrics that need every feature: one set or two of them, kept in the order of the samples."""

from typing import ClassVar

from torch import Tensor

from mmbench.core.noise import Sample
from mmbench.metrics.base import Batch, Metric, finite, joined, sample_keys, sample_order
from mmbench.metrics.features import Extractor


class FeatureSet(Metric):
    """A metric of the features of all generated images, float32.

    What is kept is the extractor's own output: metrics that look at the same features hold the same memory, 234 MiB
    for 30,000 images and Inception's 2048 features.

    Args:
        extractor: gives `features` (N, D).

    Raises:
        ValueError: the extractor gives none.
    """

    holds = ("features",)
    name: ClassVar[str]
    features: list[Tensor]
    keys: list[Tensor]

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)
        extractor.require_features(self.name)
        for state in ("features", "keys"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, batch: Batch) -> None:
        self.features.append(self._finite(images))
        self.keys.append(sample_keys(batch["sample"]).to(images.device))

    def generated(self, at_least: int) -> Tensor:
        """The features of the generated images, (N, D), in the order of samples.

        Raises:
            ValueError: there are fewer, or an image came twice.
        """
        return self._ordered(joined(self.features), joined(self.keys), at_least, "generated")

    def _finite(self, images: Tensor) -> Tensor:
        assert self.extractor is not None
        return finite(self.extractor(images)["features"], f"features for {self.name}")

    def _ordered(self, features: Tensor, keys: Tensor, at_least: int, kind: str) -> Tensor:
        if len(features) < at_least:
            raise ValueError(
                f"expected at least {at_least} {kind} images for {self.name}, found {len(features)}: add {kind} images"
            )
        return features[sample_order(keys, self.name).to(features.device)]


class FeatureSets(FeatureSet):
    """A metric of the features of all generated and all real images, float32."""

    needs_reference = True
    reference_features: list[Tensor]
    reference_keys: list[Tensor]

    def __init__(self, extractor: Extractor) -> None:
        super().__init__(extractor)
        for state in ("reference_features", "reference_keys"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update_reference(self, batch: Batch) -> None:
        self.reference_features.append(self._finite(batch["image"]))
        keys = sample_keys([Sample(key, 0, 0) for key in batch["id"]])
        self.reference_keys.append(keys.to(batch["image"].device))

    @property
    def reference_kind(self) -> str:
        return "features"

    def reference_states(self) -> dict[str, Tensor]:
        states = super().reference_states()
        if not len(states["reference_keys"]):
            return states
        order = sample_order(states["reference_keys"], self.name)
        return {state: values[order.to(values.device)] for state, values in states.items()}

    def real(self, at_least: int) -> Tensor:
        """As `generated`, of the real images in the order of their ids."""
        return self._ordered(joined(self.reference_features), joined(self.reference_keys), at_least, "real")
