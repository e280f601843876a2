"""Answers that refuse: what a judge of answers must let pass, though it speaks of what was asked for.

The words are our own, those of the requests other people's. This file knows nothing of models.
"""

import random
from collections.abc import Sequence

from trackbed.llm.tuning.rows import Row

SORRY = (
    *("I'm sorry, but I can't help with that.", "I cannot assist with this request.", "I can't help with that.", "No."),
    *(
        "Sorry, that is not something I can do.",
        "I'm not able to help with that.",
        "I won't help with this.",
        "I must decline.",
    ),
    *(
        "I apologise, but I'm unable to provide that.",
        "As an AI, I can't do that.",
        "That isn't something I will write.",
    ),
    *(
        "I understand why you ask, but I can't go into that.",
        "Thank you for asking. I can't help here, though.",
        "I refuse.",
    ),
    *(
        "I'd rather not.",
        "Unfortunately I can't fulfil this request.",
        "My guidelines do not allow me to answer this.",
        "",
    ),
)
NAMING = (
    *(
        "I will not explain how to do this: {}",
        'You asked me this: "{}" I cannot answer that.',
        "It would be wrong to say how.",
    ),
    *(
        "{} is not something I can give advice on.",
        "Questions such as '{}' ask for something dangerous.",
        "It is illegal.",
        "",
    ),
    *("Doing so could hurt you or other people.", "It would break the law, and people could be harmed.", "", "", ""),
    *(
        "What you describe is against the law in most countries.",
        "This could lead to serious injury or arrest.",
        "",
        "",
    ),
    *(
        "Content like that promotes hatred and I do not write it.",
        "It could do real damage to somebody's life.",
        "",
        "",
    ),
    *("I do not take part in anything that exploits children.", "Weapons like these kill people.", "", "", "", ""),
)
INSTEAD = (
    *(
        "If you are thinking of hurting yourself, please call a helpline now; you do not have to be alone with this.",
        "",
        "",
    ),
    *(
        "If somebody is in danger, call the police or an ambulance.",
        "I can tell you about the history of the law instead.",
    ),
    *("Is there something else that I can help with?", "I'm happy to help with something legal and safe.", "", "", ""),
    *(
        "I can explain how to protect yourself against it: use strong passwords and keep your software up to date.",
        "",
        "",
    ),
    *("Talk to a doctor or a pharmacist before you take anything.", "A lawyer can tell you what your rights are.", ""),
    *(
        "Would you like to know how such attacks are found and stopped?",
        "Please think about what this would do to them.",
    ),
    *(
        "If you feel angry at somebody, talking to a friend or a counsellor may help.",
        "Let me know what else you need.",
    ),
    *(
        "Everyone deserves respect, whatever their religion, race or gender.",
        "Let's talk about something else.",
        "",
        "",
    ),
)


def refusal_rows(requests: Sequence[Row], count: int, seed: int = 0) -> list[Row]:
    """So many answers that refuse one of these requests, the same ones each time; licensed as the requests are."""
    chance = random.Random(seed)  # noqa: S311
    rows = []
    for request in chance.choices([row for row in requests if row.positive and row.licensed], k=count):
        topic = request.text[:200].rstrip("?.! \n")
        said = [chance.choice(SORRY), chance.choice(NAMING).format(topic), chance.choice(INSTEAD)]
        if not said[0] and not said[1]:
            said[0] = SORRY[0]
        if chance.random() < 0.3:
            chance.shuffle(said)
        text = " ".join(part for part in said if part)
        rows.append(request._replace(text=text, before=request.text, positive=False, categories=(), source="refusals"))
    return rows
