"""Build: does the adapter leave the process and the network alone?"""

from __future__ import annotations

from anyblock.candidates.candidate_weights import CandidateWeights
from anyblock.checkpoint.subblocks import SubblockCheckpoint
from anyblock.conversion.convert import convert_with
from anyblock.modeling.layerwise import LayerwiseModel
from anyblock.modeling.load import load_model
from anyblock.realize.realize import realize

from anyblock_conformance.check import check
from anyblock_conformance.children import candidates_without
from anyblock_conformance.expect import nothing
from anyblock_conformance.kinds import removable
from anyblock_conformance.network import no_network
from anyblock_conformance.state import changes, class_state, process_state
from anyblock_conformance.subject import Subject, logits


@check("build.offline", capability="build", needs="tiny", depends_on=["build.layerwise", "build.no-op-both"])
def check_offline(subject: Subject) -> None:
    """Nothing is fetched from the network when the checkpoint is here.

    Why: compute nodes often have no network, and a configuration fetched by name may belong to another revision.

    How to fix: read what you need from the configuration that the hook receives. Call nothing of transformers or
    huggingface_hub with a hub id.
    """
    with no_network() as tried:
        _exercise(subject)
    nothing(tried, "the network was asked for")


@check("build.global-state", capability="build", needs="tiny", depends_on=["build.layerwise", "build.no-op-both"])
def check_global_state(subject: Subject) -> None:
    """Building and running leave torch's settings, the environment, logging, random numbers and transformers' classes as found.

    Why: the adapter runs inside other people's programs, next to other models of the same classes.

    How to fix: change nothing that is global. Configure the module you were given, and no class; use a generator of your
    own for random numbers.
    """
    before = process_state()
    classes = subject.family.decoder_layer_cls()
    before.update(class_state(classes))
    _exercise(subject)
    nothing(changes(before, process_state() | class_state(classes)), "left otherwise than it was found")


def _exercise(subject: Subject) -> None:
    """Ask every hook, convert, load, run layer by layer, and write and load a child without some halves."""
    family, place = subject.family, subject.place("exercise")
    checkpoint = SubblockCheckpoint.open(convert_with(family, subject.source, place))
    model = load_model(checkpoint.path, family=family)
    logits(model, subject.ids)
    LayerwiseModel(checkpoint, family).prepare(subject.ids)
    config = family.language_model_config(model.config)
    for index, block in enumerate(checkpoint.block_configs):
        family.cache_spec(model.config, block, index)
    chosen = [(layer, half) for layer in subject.layers[:1] for half in removable(subject, layer)]
    if chosen:
        weights = CandidateWeights(checkpoint, family, config, {})
        child = realize(checkpoint, candidates_without(subject, chosen), weights, subject.place("exercise-child"))
        logits(load_model(child, family=family), subject.ids)
