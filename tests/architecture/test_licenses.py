"""What is installed at run time may be used in a project under Apache-2.0."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = re.compile(
    r"\b(MIT|MIT-0|CMU|HPND|BSD|0BSD|BSD-2-Clause|BSD-3-Clause|Apache|Apache-2\.0|ISC|PSF|PSF-2\.0|Python-2\.0|MPL-2\.0|"
    r"Mozilla Public License 2\.0|Unlicense|CC0|Zlib|Public Domain|CNRI-Python|Bundled Python)\b",
    re.IGNORECASE,
)
BY_HAND = {
    "intel-openmp": "Intel's own: may be used and passed on unchanged; torch's CPU build needs it",
    "intel-cmplr-lib-ur": "the same; it comes with intel-openmp",
    "oss-harmony": "Apache-2.0, by the license file in its wheel",
    "pycountry": "LGPL-2.1: a library that is used unchanged, as vLLM's, and can be replaced by whoever installs",
    "setuptools": "MIT, by the license file in its wheel",
}
"""Packages whose metadata name no license, or one of their own: what it is."""


def pinned() -> list[str]:
    """Names of what an image without a GPU installs; CUDA's own libraries are NVIDIA's and come with their terms."""
    lists = [ROOT / f"deploy/requirements/{name}.txt" for name in ("service", "cpu")]
    return sorted({name for file in lists for name in re.findall(r"^([\w.-]+)==", file.read_text(), re.MULTILINE)})


def license_of(name: str) -> str | None:
    """What a package says; None when it is not installed here."""
    try:
        said = distribution(name).metadata
    except PackageNotFoundError:
        return None
    classifiers = [one for one in said.get_all("Classifier") or [] if one.startswith("License ::")]
    return " | ".join([said.get("License-Expression") or "", *classifiers, (said.get("License") or "")[:300]])


def test_every_package_has_a_license_that_fits() -> None:
    """One without any, or with another, is looked at by somebody and noted with what it is."""
    names = pinned()
    licenses = {name: text for name in names if (text := license_of(name)) is not None}
    assert len(licenses) > len(names) * 0.9, sorted(set(names) - licenses.keys())
    assert {name: text for name, text in licenses.items() if not ALLOWED.search(text) and name not in BY_HAND} == {}


def test_the_lists_for_the_images_name_one_version_of_each() -> None:
    """As the lists of packages that a build keeps are made from them."""
    for name in ("service", "cpu", "gpu"):
        lines = (ROOT / f"deploy/requirements/{name}.txt").read_text().splitlines()
        assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+", line) for line in lines if line and not line.startswith("#")), (
            name
        )
