"""The smallest Vosk model: Kaldi's formats by hand, random weights, and the words of digits.

It shows that Vosk loads a model and says words with times; the words mean nothing.
"""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["one", "two", "three", "four"]
FEATURES = 13
#: OpenFst's vector FST with weights of the tropical semiring.
MAGIC, VERSION = 2125659606, 2


def make_model(directory: Path) -> Path:
    """Write the model into ``directory`` (made anew) and return it."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in ("am", "conf", "graph"):
        (directory / name).mkdir(parents=True)
    (directory / "conf/mfcc.conf").write_text(
        f"--use-energy=false\n--sample-frequency=16000\n--num-mel-bins=23\n--num-ceps={FEATURES}\n"
    )
    (directory / "conf/model.conf").write_text(
        "--min-active=1\n--max-active=100\n--beam=8.0\n--lattice-beam=2.0\n"
        "--acoustic-scale=1.0\n--frame-subsampling-factor=3\n--endpoint.silence-phones=9\n"
    )
    (directory / "am/final.mdl").write_text(_acoustic_model(np.random.default_rng(7)))
    words = ["<eps>", *WORDS]
    (directory / "graph/words.txt").write_text(
        "".join(f"{word} {number}\n" for number, word in enumerate(words))
    )
    (directory / "graph/HCLG.fst").write_bytes(_graph())
    return directory


def _acoustic_model(random: Any) -> str:
    """A transition model of one state a phone, and one layer; in Kaldi's text form."""
    phones = range(1, len(WORDS) + 1)
    topology = (
        "<TransitionModel> <Topology> <TopologyEntry> <ForPhones> "
        f"{' '.join(map(str, phones))} </ForPhones> "
        "<State> 0 <PdfClass> 0 <Transition> 0 0.5 <Transition> 1 0.5 </State> <State> 1 </State> "
        "</TopologyEntry> </Topology>\n"
    )
    triples = f"<Triples> {len(WORDS)} " + "".join(f"{p} 0 {p - 1} " for p in phones) + "</Triples>"
    halves = " ".join(["0", *["-0.693147"] * (2 * len(WORDS))])
    weights = random.standard_normal((len(WORDS), FEATURES)) * 0.3
    rows = "\n  ".join(" ".join(f"{value:.5f}" for value in row) for row in weights)
    bias = " ".join(["0"] * len(WORDS))
    return (
        f"{topology}{triples}\n<LogProbs> [ {halves} ]\n</LogProbs> </TransitionModel>\n"
        f"<Nnet3> \ninput-node name=input dim={FEATURES}\n"
        "component-node name=affine component=affine input=input\n"
        "component-node name=softmax component=softmax input=affine\n"
        "output-node name=output input=softmax\n\n<NumComponents> 2\n"
        "<ComponentName> affine <AffineComponent> <LearningRate> 0.001 <LinearParams>  [\n"
        f"  {rows} ]\n<BiasParams>  [ {bias} ]\n<IsGradient> F </AffineComponent>\n"
        f"<ComponentName> softmax <LogSoftmaxComponent> <Dim> {len(WORDS)} "
        "<ValueAvg> [ ]\n<DerivAvg> [ ]\n<Count> 0 <NumDimsSelfRepaired> 0 <NumDimsProcessed> 0 "
        "</LogSoftmaxComponent>\n</Nnet3>\n<LeftContext> 0 <RightContext> 0 <Priors> [ ]\n"
    )


def _graph() -> bytes:
    """Any word after any word: into a word by its first transition, on by its loop."""
    arcs: list[list[tuple[int, int, float, int]]] = [[]]
    for number in range(1, len(WORDS) + 1):
        loop, leave = 2 * number - 1, 2 * number
        arcs[0].append((leave, number, 1.0, number))
        arcs.append([(loop, 0, 0.0, number), (0, 0, 3.0, 0)])
    text = b"".join(struct.pack("<i", len(name)) + name for name in (b"vector", b"standard"))
    count = sum(map(len, arcs))
    head = struct.pack("<i", MAGIC) + text
    head += struct.pack("<iiQqqq", VERSION, 0, 0x0000000000000003, 0, len(arcs), count)
    body = b""
    for each in arcs:
        body += struct.pack("<fq", 0.0, len(each))
        body += b"".join(struct.pack("<iifi", *arc) for arc in each)
    return head + body
