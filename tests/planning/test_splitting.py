"""Which images are held out: a share, whole series, the same ones each time."""

import collections

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tpu_retinamask.errors import UserError
from tpu_retinamask.planning.splitting import TRAIN, VALIDATION, from_csv, series_of, split_names, to_csv

PHOTOS = [
    f"photos/{word}.jpg" for word in ["oak", "elm", "ash", "fir", "yew", "birch", "pine", "beech", "larch", "alder"]
]


def held_out(names, share, seed=0):
    split = split_names(names, share, seed)
    assert list(split) == list(names)
    return [name for name in names if split[name] == VALIDATION]


def test_a_share_is_held_out():
    for share, expected in ((0.2, 2), (0.5, 5), (0.01, 1), (0.9, 9), (0.99, 9)):
        assert len(held_out(PHOTOS, share)) == expected


def test_the_choice_follows_from_the_seed_and_not_from_the_order():
    assert held_out(PHOTOS, 0.3) == held_out(PHOTOS, 0.3)
    assert set(held_out(PHOTOS[::-1], 0.3)) == set(held_out(PHOTOS, 0.3))
    assert len({tuple(held_out(PHOTOS, 0.3, seed)) for seed in range(20)}) > 5
    # One image more changes no more than one.
    more = [*PHOTOS, "photos/rowan.jpg"]
    assert len(set(held_out(more, 0.3)) ^ set(held_out(PHOTOS, 0.3))) <= 2


def test_a_series_is_in_one_split():
    films = [f"film{film}/frame_{number:04d}.png" for film in "abcdefghij" for number in range(0, 100, 10)]
    for seed in range(5):
        chosen = held_out(films, 0.2, seed)
        assert len(chosen) == 20
        assert set(collections.Counter(name.split("/")[0] for name in chosen).values()) == {10}


def test_series_of_just_twice_what_is_wanted_are_cut():
    films = [f"film{film}_{number}.png" for film in "abc" for number in range(4)]
    assert len(held_out(films, 0.2)) == 2


def test_one_long_series_is_cut_once():
    film = [f"frame_{number}.png" for number in range(100)]  # 10 comes after 9, not after 1
    assert held_out(film, 0.2) == film[80:]


@given(
    films=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    photos=st.integers(0, 20),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 100),
)
@settings(max_examples=300, deadline=None)
def test_something_is_held_out_and_something_left_whatever_the_series(films, photos, share, seed):
    names = [f"film{film}_{number}.png" for film, length in enumerate(films) for number in range(length)]
    names += [f"{'x' * number}y.png" for number in range(photos)]
    assume(len(names) > 1)
    wanted = max(1, round(share * len(names)))
    assert 1 <= len(held_out(names, share, seed)) <= min(len(names) - 1, 2 * wanted - 1)


def test_numbers_that_rise_unevenly_are_no_series():
    coco = [f"{number:012d}.jpg" for number in (139, 285, 632, 724, 776, 785, 802, 872)]
    assert sorted(map(len, series_of(coco))) == [1] * 8
    assert [len(one) for one in series_of(["a1.png", "a2.png"])] == [1, 1]  # two are none yet
    assert series_of(["a1.png", "a3.png", "a2.png"]) == [["a1.png", "a2.png", "a3.png"]]
    assert series_of(["a1_left.png", "a2_left.png", "a3_left.png", "a1_right.png"]) == [
        ["a1_left.png", "a2_left.png", "a3_left.png"],
        ["a1_right.png"],
    ]


def test_what_is_written_is_read_back():
    split = split_names(["a,b.png", 'quoted".png', "plain.png"], 0.3)
    assert from_csv(to_csv(split), "split.csv") == split


@pytest.mark.parametrize(
    ("text", "line"), [("", 1), ("name,part\n", 1), ("image,split\na.png,test\n", 2), ("image,split\na.png\n", 2)]
)
def test_a_split_that_is_none_is_refused(text, line):
    with pytest.raises(UserError, match=f"split.csv, line {line}: expected image,split"):
        from_csv(text, "split.csv")


def test_blank_lines_are_none_and_an_image_is_in_one_part():
    assert from_csv("image,split\n\na.png,train\n\n", "split.csv") == {"a.png": "train"}
    twice = "image,split\na.png,train\na.png,train\na.png,validation\n"
    with pytest.raises(UserError, match="split.csv: a.png is both train and validation"):
        from_csv(twice, "split.csv")


def test_one_image_cannot_be_divided():
    with pytest.raises(UserError, match="--val_share=0.2: 1 image cannot be divided"):
        split_names(["a.png"], 0.2)
    assert sorted(split_names(["a.png", "b.png"], 0.2).values()) == [TRAIN, VALIDATION]
