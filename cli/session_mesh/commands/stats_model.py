"""`stats-model`: what each model has used."""

from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.verbs import verb
from session_mesh.views.amounts import MOST_MAX, ids_of, notes_of, statistics


@verb("session-mesh stats-model", "session-mesh stats-model -o csv")
def app(call: Call) -> View:
    """Show requests, sessions, tokens and money of each model, the dearest first.

    The same as `cost --by model`, with more columns. CACHED was read from caches or written into
    them.
    """
    value = call.read(lambda mesh: mesh.cost(("model",), most=MOST_MAX))
    return View(
        value=value,
        human=statistics(value, "model"),
        records="groups",
        keys=("model",),
        ids=ids_of(value),
        notes=[*words.coverage_notes(value["coverage"]), *notes_of(value)],
    )
