"""What a model says before it goes on, told from what goes on: in English and in Spanish."""

import pytest

from cauce.engine.recovery.preamble import LONGEST, talks
from cauce.engine.recovery.seam import HELD, Seam

MID = "You can use either form of it; if you are not "
OVER = "The river rises in the hills. It is cold there. "
MEDIO = "El agua del arroyo bajaba muy limpia y el cielo estaba muy "
FIN = "La Giralda es la torre de la catedral. La construyeron los almohades. "
STEPS = "First two of four steps are done now here."
LINE = "These are the steps:\n\n1. Open the box.\n2. Read the note.\n"

GOES_ON = [
    (MID, "sure, use the first form because it is always safe to use here."),
    (MID, "certain, ask. Continuing without it is a mistake."),
    (MID, "ok, nobody will mind, and you can go back to the first form."),
    ("The answer is, ", "of course, that nobody knows. The rest is silence."),
    ("He took up the book, ", "continuing from where he had stopped the night before."),
    ("He looked at me and said that ", "I'll continue without you, and that was that."),
    ("She wrote: ", "Sure, come whenever you want to, the door is always open."),
    ('She smiled and said, "', "Of course, come in and sit down by the fire."),
    ("In the last chapter ", "the rest of the family arrives, and here is the surprise."),
    ("The road goes on and on, ", "picking up speed as it leaves the valley behind."),
    ("He was ", "sorry, she thought, and let him in all the same."),
    ("They said they were ", "sorry about the cut on his hand, and left."),
    (OVER, "Surely nobody swims there, but the water is clean."),
    (OVER, "Certainly the water is clean, and few swim there."),
    (OVER, "Here the valley opens, and the river slows down."),
    (OVER, "Continuing education is expensive in the hills."),
    (OVER, "Let me give an example: the mill of the old town."),
    (OVER, "The rest of the way is easy."),
    (OVER, "sure, it is cold, but it is clean, and nobody minds."),
    (LINE, "3. Continue with the screws, one by one, until it is closed."),
    (LINE + "3. ", "Sure, take your time, and close the box."),
    (MEDIO, "claro, y el sol brillaba sobre los campos de olivos de Jaén."),
    ("Para llegar al mercado cruza el puente y ", "sigo recto hasta la plaza, donde la fuente marca el centro."),
    ("Yo, por la noche, ", "continúo con la lectura, despacio, hasta que me duermo."),
    ("Me dijo que ", "de acuerdo, que viniera, pero que no trajera a nadie."),
    ("No es culpa suya, ", "perdón, es mía, y lo sabe todo el pueblo."),
    ("Y entonces él contestó: ", "Claro, ven cuando quieras, la puerta está abierta."),
    ("—¿Vienes? —preguntó ella.\n—", "Por supuesto, espérame en la plaza a las ocho."),
    ("Está ", "siguiendo la costa, a dos horas de aquí, más o menos."),
    ("La casa es de ", "la última respuesta que dio mi abuelo, y no lo siento."),
    (FIN, "Claramente, la parte de arriba es posterior."),
    (FIN, "Aquí está la puerta del Perdón, que da al patio."),
    (FIN, "Siguiendo por la calle, a mano derecha, hay otra torre."),
    (FIN, "Sigo recto y llego a la plaza, donde está el ayuntamiento."),
    (FIN, "Como la torre es alta, se ve desde lejos."),
]

TALKS = [
    (MID, "Sure, here is the rest:\n\nsure, use the first form."),
    (MID, "Of course! Here's the continuation of the answer: sure, use it."),
    (MID, "Continuing from where I left off:\nsure, use the first form."),
    (MID, "I'll continue from where I stopped. sure, use the first form."),
    (MID, "Let me pick up right where I left off: sure, use the first form."),
    (MID, "Picking up where the answer was cut off, sure, use it."),
    (MID, "I apologize for the interruption. sure, use the first form."),
    (MID, "Sorry, my connection was interrupted. sure, use the first form."),
    (MID, "My previous answer was cut off. sure, use the first form."),
    (MID, "**Continuation:**\n\nsure, use the first form."),
    (MID, "Here’s the rest of the answer.\n\nsure, use it."),
    (OVER, "Sure! It is cold there, and it is clean."),
    (OVER, "Certainly. It goes down to the valley then."),
    (OVER, "My apologies, it goes down to the valley then."),
    (OVER, "Okay, it goes down to the valley then."),
    (LINE, "Of course, 3. Close the box."),
    (MEDIO, "Claro, aquí tienes el resto: claro, y el sol brillaba."),
    (MEDIO, "Continúo donde lo dejé: claro, y el sol brillaba."),
    (MEDIO, "Claro, continúo:\nclaro, y el sol brillaba sobre los campos."),
    (MEDIO, "Sigo exactamente desde donde se cortó: claro, y el sol brillaba."),
    (MEDIO, "Perdón por la interrupción. claro, y el sol brillaba."),
    (MEDIO, "Disculpa el corte, claro, y el sol brillaba sobre los campos."),
    (MEDIO, "Lamento la interrupción: claro, y el sol brillaba."),
    (MEDIO, "Retomo la respuesta donde se quedó. claro, y el sol brillaba."),
    (MEDIO, "Aquí va la continuación:\n\nclaro, y el sol brillaba."),
    (MEDIO, "¡Por supuesto! Continúo desde donde lo dejé. claro, y el sol."),
    (MEDIO, "Mi respuesta se cortó. claro, y el sol brillaba."),
    (MEDIO, "Continuando con la respuesta anterior, claro, y el sol."),
    (FIN, "Claro, la terminaron los cristianos."),
    (FIN, "¡Por supuesto! La terminaron los cristianos."),
    (FIN, "De acuerdo. La terminaron los cristianos."),
    (FIN, "Disculpa, la terminaron los cristianos."),
    (FIN, "Lo siento, la terminaron los cristianos."),
]

# Talk about a thing of the text's own, and not about the answer.
OWN_THINGS = [
    "Here are the remaining two steps:\n1. Wash it",
    "Here is the rest of the code:\n```python\nprint(1)\n```\n",
    "Here is the remaining budget per team:",
    "Here is the rest of the text field's options: width and height.",
    "Let's continue with the text field component.",
    "Let's go on with the response headers",
    "Let's continue where the trail forks, at the old mill.",
    "Continuing with the response.json file, read its first key.",
    "Resuming: pods start again",
    "Aquí está el resto del código:",
    "Aquí tienes el resto de la receta:",
    "Continuación: capítulo dos",
    "Sigo desde aquí el sendero…",
    "Sigo donde se queda la plaza, a la sombra.",
    "Continuing the last textbook on the shelf, read on.",
    "Siento un corte en la mano",
    "Siento el corte en la mano, y duele.",
    "Disculpa el corte de pelo de mi hermano.",
]
GOES_ON += [(delivered, head) for head in OWN_THINGS for delivered in (MID, STEPS, MEDIO)]

# Each refused in the middle of a sentence, as soon as it stands there and whatever follows.
ANNOUNCES = [
    "Continuando con la respuesta:",
    "Continúo con la respuesta:",
    "Continuación de la respuesta:",
    "Sigo con la explicación:",
    "Aquí tienes el texto restante:",
    "Disculpa el corte de conexión.",
    "I'll continue the explanation:",
    "Continuing my explanation:",
    "Continuing from the cutoff:",
    "I apologize for the confusion. Continuing:",
    "...continuing:",
    "sure, here is the rest:",
    "¡Claro! Continúo con la explicación:",
    "Sorry about that! Here is the rest:",
    "Great! Let me continue:",
    "Yes, here is the rest:",
    "Aquí continúa la respuesta:",
    "Sí, continúo donde lo dejé:",
    "Sorry for the delay. Resuming:",
    "Siento la interrupción.",
]
TALKS += [(delivered, head + more) for head in ANNOUNCES for more in ("", " sure") for delivered in (MID, MEDIO, STEPS)]


def judged(delivered: str, head: str, size: int, *, takes_preamble: bool = False) -> tuple[str, str]:
    """What becomes of `head`, fed in pieces of `size`, and what of it is shown."""
    seam = Seam(delivered, takes_preamble=takes_preamble)
    pieces = [head[start : start + size] for start in range(0, len(head), size)]
    for number, piece in enumerate(pieces):
        verdict, shown = seam.feed(piece)
        if verdict != "hold":
            return verdict, shown + "".join(pieces[number + 1 :])
    return seam.finish()


@pytest.mark.parametrize(("delivered", "head"), GOES_ON)
def test_text_that_goes_on_is_shown_whole_whatever_words_it_begins_with(delivered: str, head: str) -> None:
    for size in (1, 7, 500):
        assert judged(delivered, head, size) == ("go on", head)


@pytest.mark.parametrize(("delivered", "head"), TALKS)
def test_head_that_talks_about_going_on_is_refused(delivered: str, head: str) -> None:
    for size in (1, 7, 500):
        assert judged(delivered, head, size)[0] == "talk"
    assert judged(delivered, head, 7, takes_preamble=True) == ("go on", head)


def test_head_that_opens_like_a_preamble_is_not_held_for_long() -> None:
    head = "Here " + "and there " * 20
    lengths = [length for length in range(len(head)) if talks(OVER, head[:length]) == "perhaps"]
    assert max(lengths) < LONGEST < HELD
