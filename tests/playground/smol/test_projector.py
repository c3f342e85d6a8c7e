"""What the projector is fitted to: a patch's target says what has its centre there, and where it is."""

import pytest
import torch

from playground.shapes.scene import COLOURS, SHAPES, SIDE, SIZES, sample_scene, scene_rng
from playground.shapes.tower import TowerSize
from playground.smol.projector import CONTRAST, PatchTargets, WordEmbeddings

WIDTH, GRID = 512, 12


class AlikeWords(WordEmbeddings):
    """Random embeddings (512,) of which those of colours and sizes are much alike, as in a language model."""

    def __init__(self) -> None:
        self.seen: dict[str, torch.Tensor] = {}
        self.common = {len(words): torch.randn(WIDTH) for words in (COLOURS, SIZES)}

    def of(self, word: str) -> torch.Tensor:
        shared = next((self.common[len(words)] for words in (COLOURS, SIZES) if word in words), torch.zeros(WIDTH))
        return self.seen.setdefault(word, 2 * shared + torch.randn(WIDTH))


@pytest.fixture
def target() -> PatchTargets:
    torch.manual_seed(0)
    return PatchTargets(TowerSize(168, 14, 8, 1), AlikeWords())


def named(target: PatchTargets, patch: torch.Tensor, words: tuple[str, ...]) -> str:
    """The word of a class that a patch is nearest to, by what sets the words apart."""
    vectors = torch.stack([target.known[word] for word in words])
    apart = vectors - vectors.mean(0)
    return words[int((patch @ apart.T - apart.square().sum(1) / 2).argmax())]


def test_item_is_read_from_the_patch_of_its_centre(target) -> None:
    for index in range(40):
        scene = sample_scene(scene_rng("train", 3, index), "train")
        wanted, there = target(scene)
        assert wanted.shape == (GRID**2, WIDTH) and int(there.sum()) == len(scene.items)
        for item in scene.shapes:
            patch = wanted[item.y * GRID // SIDE * GRID + item.x * GRID // SIDE] - target.positions.mean(0)
            read = tuple(named(target, patch, words) for words in (SIZES, COLOURS, SHAPES))
            assert read == (item.size, item.colour, item.name)


def test_empty_patch_is_its_position_alone(target) -> None:
    wanted, there = target(sample_scene(scene_rng("train", 3, 0), "train"))
    assert torch.equal(wanted[~there], target.positions[~there])


def test_difference_of_two_positions_says_which_is_left_and_which_is_above(target) -> None:
    words = target.embeddings
    right, down = words.of("right") - words.of("left"), words.of("bottom") - words.of("top")
    grid = target.positions.view(GRID, GRID, WIDTH)
    for side in (right, down):
        across = (grid if side is right else grid.transpose(0, 1)) @ side
        assert (across.diff(dim=1) > 0).all()


def test_contrast_sets_the_words_of_a_class_apart_around_the_same_mean(target) -> None:
    words = target.embeddings
    plain, apart = (torch.stack([source(word) for word in COLOURS]) for source in (words.of, target.known.get))
    torch.testing.assert_close(apart.mean(0), plain.mean(0))
    torch.testing.assert_close(apart - apart.mean(0), CONTRAST * (plain - plain.mean(0)))
