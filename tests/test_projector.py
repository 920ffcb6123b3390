"""StyleGAN2's projector: the error falls, rows do not see each other, and what is done is not done again."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mmbench.core import config
from mmbench.core.noise import Noise, Sample
from mmbench.networks.lpips_vgg import LPIPSVGG
from mmbench.pipeline import assembly, evaluation

DATA = ["data=celeba_hq", "data.source=toy", "data.toy_images=40", "trainer=cpu"]
WORDS = ["method=projector", "protocol=strict_reconstruction", *DATA, "weights=none", "scale=tiny"]


@pytest.fixture
def projector(home):
    """A projector into a generator that was not trained."""

    def make(*words):
        plain = config.composed([*WORDS, *words])
        return assembly.built(plain, assembly.prepared_data(plain, evaluation=True))[0]

    return make


def images_of(method, count):
    """What the generator makes of latents that were drawn, and its noise maps."""
    generator, samples = method.generator.network, [Sample(str(place), 0, 0) for place in range(count)]
    noise = Noise(7, samples)
    maps = [noise.normal(f"{at}", 1, size, size) for at, size in enumerate(generator.synthesis.noise_sizes)]
    with torch.no_grad():
        return generator(noise.normal("z", generator.style_dim), maps).clamp(-1, 1), samples


def batch_of(images, samples):
    return {"id": [sample.id for sample in samples], "sample": samples, "image": images, "noise": Noise(0, samples)}


def test_the_error_falls(projector):
    method = projector("method.module.steps=60")
    images, samples = images_of(method, 2)
    average, spread = method.statistics()
    assert spread > 0
    start = method.draw({}, [{"w": average, **state} for state in first_maps(method, samples)], None)
    found = method.predict_step(batch_of(images, samples))
    before, after = ((method.seen(one) - method.seen(images)).square().sum(dim=1) for one in (start, found))
    assert (after < before / 2).all(), (before, after)
    assert ((found - images).abs().mean(dim=(1, 2, 3)) < (start - images).abs().mean(dim=(1, 2, 3))).all()


def first_maps(method, samples):
    noise = Noise(0, samples)
    sizes = enumerate(method.generator.network.synthesis.noise_sizes)
    maps = {f"map {at}": noise.normal(f"map {at}", 1, size, size) for at, size in sizes}
    return [{name: one[row] for name, one in maps.items()} for row in range(len(samples))]


def test_a_row_alone_is_that_of_its_batch(projector):
    method = projector("method.module.steps=10")
    images, samples = images_of(method, 3)
    together = method.tune(batch_of(images, samples), Noise(0, samples))
    by_one = method.predict_step(batch_of(images, samples))
    for row, sample in enumerate(samples):
        (alone,) = method.tune(batch_of(images[row : row + 1], [sample]), Noise(0, [sample]))
        assert all(torch.allclose(alone[name], together[row][name], atol=1e-3) for name in alone)
        image = method.predict_step(batch_of(images[row : row + 1], [sample]))[0]
        assert torch.allclose(image, by_one[row], atol=1e-5)


def test_images_of_another_size_than_the_generator_makes_are_refused(projector):
    method = projector()
    with pytest.raises(ValueError, match=r"expected images of 16 x 16, which the generator makes, found 32 x 32: set"):
        method.predict_step(batch_of(torch.zeros(1, 3, 32, 32), [Sample("a", 0, 0)]))


def evaluated(home, *words):
    command = [sys.executable, "-W", "ignore", "-m", "mmbench", "evaluate", *WORDS, *words]
    return subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tuned(home):
    found = home.glob("runs/projector-*/tuned/*/*.safetensors")
    return {path.name: path for path in found if not path.name.startswith(".")}  # being written


@pytest.mark.slow  # two processes that import everything
@pytest.mark.timeout(120)
def test_killed_it_goes_on_at_the_next_input_and_gives_the_same(home):
    words = ["method.module.steps=25", "protocol.count=6", "protocol.draws=2"]
    run = evaluated(home, *words)
    while len(tuned(home)) < 2:
        assert run.poll() is None, run.stdout.read()
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    done = tuned(home)
    assert 2 <= len(done) < 6
    kept = {name: (path.stat().st_mtime_ns, path.read_bytes()) for name, path in done.items()}
    record, _ = evaluation.evaluate(config.composed([*WORDS, *words]))
    after = tuned(home)
    assert len(after) == 6, "one inversion serves both draws"
    assert {name: (after[name].stat().st_mtime_ns, after[name].read_bytes()) for name in kept} == kept
    assert not list(home.glob("runs/projector-*/tuned/*/*.lock"))

    straight, _ = evaluation.evaluate(config.composed([*WORDS, *words, "paths.runs=other", "paths.results=other"]))
    assert straight.metrics == record.metrics
    for name, path in after.items():
        (other,) = home.glob(f"other/projector-*/tuned/*/{name}")
        assert other.read_bytes() == path.read_bytes()


def test_lpips_on_vgg_is_that_of_its_package():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = LPIPSVGG().eval()
        one, other = torch.rand(2, 2, 3, 32, 32) * 255
    with torch.no_grad():
        wanted = network.network(one / 127.5 - 1, other / 127.5 - 1).flatten()
        found = (network(one)["embedding"] - network(other)["embedding"]).square().sum(dim=1)
    assert torch.allclose(found, wanted, rtol=1e-4)
