"""Questions by rule: one task asked in the many ways that people ask it.

A phrasing is a frame ("How do I {do}?") around the task's own words, some of which change to synonyms, lose their
articles or gain a typing error. Everything is drawn from the `random.Random` that the caller passes in.
"""

import random
import re
import tomllib
from collections.abc import Sequence

from parkway.train.everyday import WORDS
from parkway.train.grammar import expand

# {do} is the imperative ("extract an archive"), {doing} its gerund. The plain frames are the usual ones; behind them
# stand many that are rare, because a model that has seen few frames takes an unknown one for another kind of question.
_PLAIN = (
    *("How do I {do}?",) * 6,
    *("How can I {do}?",) * 3,
    *("how to {do}",) * 3,
    *("{do}",) * 4,
    *("Command to {do}", "Command for {doing}", "What is the command to {do}?", "I want to {do}.") * 2,
)
_RARE = (
    "How would I {do}?",
    "How do you {do}?",
    "How does one {do}?",
    "How should I {do}?",
    "How could we {do}?",
    "How might somebody {do}?",
    "How are people supposed to {do}?",
    "How am I meant to {do}?",
    "What's the command to {do}?",
    "What's the command for {doing}?",
    "What is the line for {doing}?",
    "What is the syntax to {do}?",
    "What is the usual way to {do}?",
    "What's the quickest way to {do}?",
    "What's the easiest method for {doing}?",
    "What's a good way to {do}?",
    "What do I enter to {do}?",
    "What do I have to write to {do}?",
    "What must I run to {do}?",
    "What can I use for {doing}?",
    "What tool do I use to {do}?",
    "What program lets you {do}?",
    "What does it take to {do}?",
    "Which command do I use to {do}?",
    "Which command can {do}?",
    "Which command is for {doing}?",
    "Which line would {do}?",
    "Which tool is right for {doing}?",
    "What command will {do}?",
    "command line to {do}",
    "one-liner to {do}",
    "Bash command for {doing}",
    "terminal command to {do}",
    "shell: {do}",
    "Task: {do}",
    "Goal: {do}. Command?",
    "I need to {do}.",
    "I'd like to {do}.",
    "I am trying to {do}.",
    "I'm looking for a command to {do}.",
    "I'm stuck {doing}, which command is it?",
    "I wonder how to {do}.",
    "I was told to {do}. Which command is it?",
    "I was asked to {do}, how is that done?",
    "I keep forgetting how to {do}.",
    "I forgot how to {do}.",
    "I don't know how to {do}.",
    "I have no idea how to {do}, help.",
    "I need a command for {doing}.",
    "I need some help {doing}.",
    "I have to {do}, how?",
    "I must {do} now.",
    "I can't remember how to {do}.",
    "I would love to {do} from here.",
    "We need to {do}. How?",
    "We want to {do} on a server.",
    "My boss wants me to {do}. Which command?",
    "My friend wants to {do}. How?",
    "A user needs to {do}. What is the command?",
    "The next step is to {do}. How do I do that?",
    "The manual says to {do}, but how?",
    "Somebody has to {do}. With what?",
    "Show me how to {do}.",
    "Show me the command for {doing}.",
    "Give me a command to {do}.",
    "Give me the line for {doing}.",
    "Write a command to {do}.",
    "Write the line that will {do}.",
    "Suggest a command for {doing}.",
    "Find me a command to {do}.",
    "Explain how to {do}.",
    "Teach me how to {do}.",
    "Let me {do}.",
    "Let's {do}.",
    "Help me {do}.",
    "Help with {doing}",
    "Tips for {doing}?",
    "Need to {do}",
    "Want to {do}",
    "Trying to {do}",
    "Can you tell me how to {do}?",
    "Can you give me the command for {doing}?",
    "Can I {do}?",
    "Can one {do} in a shell?",
    "Could you show me how to {do}?",
    "Could you help me {do}?",
    "Could I {do} with one command?",
    "Would you know how to {do}?",
    "Do you know the command to {do}?",
    "Do you have a line for {doing}?",
    "Does a command exist to {do}?",
    "Is it possible to {do}?",
    "Is there a command to {do}?",
    "Is there any tool for {doing}?",
    "Are there commands for {doing}?",
    "Any idea how to {do}?",
    "Any command for {doing}?",
    "How do I go about {doing}?",
    "How about {doing}?",
    "How is {doing} done?",
    "Please {do}.",
    "Please help me {do}.",
    "Please give me the command for {doing}.",
    "Now {do}.",
    "First I have to {do}. How?",
    "Next, {do}.",
    "Without a mouse, how do I {do}?",
    "Say I want to {do}, what then?",
    "Suppose I have to {do}. What do I enter?",
    "Assume we must {do}: which command?",
    "If I want to {do}, which command is it?",
    "When I need to {do}, what do I use?",
    "In order to {do}, which command is used?",
    "To {do}, what do I run?",
    "To {do}, which command do I need?",
    "{doing}",
    "{doing}: which command?",
    "{doing}, how?",
    "{do}, how?",
    "{do}: command?",
    "{do} please",
    "{do}, what is the command for that?",
    "{doing} in a terminal",
)
_GRAMMAR = tomllib.loads((WORDS / "frames.toml").read_text(encoding="utf-8"))
_BUILT = tuple(_GRAMMAR["frames"])
_SLOTS: dict[str, list[str]] = _GRAMMAR["slots"]
# A third of the usual ones, a third written one by one, and a third built from the grammar's thousands.
FRAMES = _PLAIN * 2 + _RARE + _BUILT * 2

# Never trained; the examination asks with these.
HELD_OUT_FRAMES = (
    "Is there a way to {do}?",
    "What should I type to {do}?",
    "Remind me, how could I {do}?",
    "My colleague asked me to {do}. What do I run?",
    "Tell me the shell command that lets me {do}.",
    "What's the best way of {doing}?",
)

_NAMED = (
    *("{q} with {name}",) * 4,
    *("{q} using {name}",) * 3,
    "{q} with the {name} command",
    "{q} using the {name} command",
    "{q} in {name}",
    "{q} via {name}",
)
_NAME_FIRST = ("{name}: {q}", "With {name}, {q}", "Using {name}, {q}", "{name} {q}", "{q} ({name})")

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "directory": ("folder", "dir"),
    "directories": ("folders", "dirs"),
    "extract": ("unpack", "unzip", "decompress"),
    "decompress": ("unpack", "extract", "uncompress"),
    "compress": ("pack", "shrink", "zip"),
    "archive": ("tarball", "archive file"),
    "display": ("show", "print", "see", "get"),
    "show": ("display", "print", "see", "view"),
    "print": ("show", "display", "output"),
    "list": ("show", "get", "see", "list all"),
    "view": ("see", "show", "look at"),
    "delete": ("remove", "erase", "get rid of"),
    "remove": ("delete", "erase", "get rid of"),
    "create": ("make", "set up", "add"),
    "generate": ("create", "make", "produce"),
    "execute": ("run", "start"),
    "run": ("execute", "start"),
    "start": ("launch", "run", "begin"),
    "launch": ("start", "open", "run"),
    "stop": ("end", "halt", "quit"),
    "terminate": ("kill", "stop", "end"),
    "search": ("look", "find"),
    "find": ("search for", "look for", "locate"),
    "replace": ("substitute", "swap", "change"),
    "rename": ("change the name of",),
    "convert": ("turn", "transform", "change"),
    "install": ("add", "set up"),
    "uninstall": ("remove",),
    "upgrade": ("update",),
    "update": ("upgrade", "refresh"),
    "download": ("fetch", "get"),
    "fetch": ("get", "download"),
    "retrieve": ("get", "fetch"),
    "get": ("show", "find", "retrieve"),
    "upload": ("send", "put"),
    "send": ("transmit",),
    "edit": ("change", "modify"),
    "modify": ("change", "edit"),
    "change": ("set", "modify", "alter"),
    "set": ("change", "configure"),
    "check": ("test", "verify", "see"),
    "verify": ("check",),
    "test": ("check",),
    "connect": ("log in", "connect up"),
    "initialize": ("set up", "init", "start"),
    "specify": ("give", "set", "choose"),
    "specified": ("given", "certain", "particular"),
    "specific": ("given", "certain", "particular"),
    "enable": ("turn on", "switch on"),
    "disable": ("turn off", "switch off"),
    "open": ("start", "load"),
    "copy": ("duplicate",),
    "synchronize": ("sync",),
    "repository": ("repo",),
    "repositories": ("repos",),
    "information": ("info", "details"),
    "configuration": ("config", "settings"),
    "current": ("this", "present"),
    "recursively": ("with all subfolders", "and everything below"),
    "interactively": ("in interactive mode",),
    "contents": ("content",),
    "all": ("every one of the", "all the"),
    "multiple": ("several", "many"),
    "image": ("picture",),
    "images": ("pictures",),
    "machine": ("computer", "host"),
    "package": ("program", "app"),
    "packages": ("programs", "apps"),
    "user": ("account",),
    "process": ("program",),
    "processes": ("running programs",),
    "port": ("network port",),
    "container": ("docker container",),
    "error": ("failure",),
    "errors": ("failures",),
    "verbose": ("detailed",),
    "string": ("text",),
    "pattern": ("expression",),
    "command": ("program",),
    "text": ("words",),
    "available": ("possible",),
    "existing": ("present",),
    "remote": ("distant",),
    "quickly": ("fast",),
    "without": ("with no",),
    "using": ("with", "by using"),
}
_SUFFIXES = (
    " in the terminal",
    " on Linux",
    " from the command line",
    " in a shell",
    " on the command line",
    " in bash",
)
_OPENERS = (
    "Please: ",
    "Hi, ",
    "Hello! ",
    "Hey, ",
    "Quick question: ",
    "One question: ",
    "Sorry, ",
    "OK, ",
    "So, ",
    "Well, ",
    "Again: ",
    "Question: ",
    "As a beginner: ",
    "On my laptop: ",
    "For my work, ",
    "At the moment I wonder: ",
)
_STOPWORDS = re.compile(r"a|an|the|to|of|in|into|from|with|for|and|its|my|this|that|using|specific|specified|given")
# Verbs that double their last letter in -ing: one syllable that ends in one vowel and one consonant, and some longer.
_DOUBLING = re.compile(r"[^aeiou]*[aeiou][^aeiouwxy]|unzip|begin|submit|commit|reset|debug")


def question(
    task: str,
    name: str | None,
    rng: random.Random,
    *,
    frames: tuple[str, ...] = FRAMES,
    keep: Sequence[str] = (),
) -> str:
    """Ask for `task`, an imperative such as "Extract an archive", naming the command where `name` is given.

    Words of `keep` are not misspelt.
    """
    protect = " ".join((name or "", *keep))
    wish = _vary(_imperative(task), rng)
    frame = _frame(frames, rng)
    bare = frame == "{do}"
    tail = ""
    if name is not None:
        spoken = f"`{name}`" if rng.random() < 0.2 else name
        if bare and rng.random() < 0.2:
            return _finish(rng.choice(_NAME_FIRST).format(name=spoken, q=wish), rng, protect)
        tail = rng.choice(_NAMED).format(q="", name=spoken)
    elif rng.random() < 0.06:
        tail = rng.choice(_SUFFIXES)
    if bare and rng.random() < 0.25:
        return _finish(_keywords(wish, name, rng), rng, protect)
    asked = frame.replace("{doing}", gerund(wish) + tail).replace("{do}", wish + tail)
    return _finish(asked, rng, protect)


def _frame(frames: tuple[str, ...], rng: random.Random) -> str:
    """One of `frames`, built up where it comes from the grammar, and held out only where `frames` say so."""
    while True:
        frame = expand(rng.choice(frames), _SLOTS, rng)
        if frame in frames or frame not in HELD_OUT_FRAMES:
            return frame


def as_written(text: str, rng: random.Random) -> str:
    """A whole question in somebody's own words, as carelessly typed as any other."""
    return _finish(text, rng)


def gerund(wish: str) -> str:
    """The imperative with its first verb in -ing: "extract an archive" -> "extracting an archive"."""
    first, space, rest = wish.partition(" ")
    if not first.isalpha() or first.endswith(("ly", "ing")) or len(first) < 2:
        return wish
    if first.endswith("ie"):
        stem = first[:-2] + "y"
    elif first.endswith("e") and not first.endswith(("ee", "oe", "ye")) and first != "be":
        stem = first[:-1]
    elif _DOUBLING.fullmatch(first):
        stem = first + first[-1]
    else:
        stem = first
    return stem + "ing" + space + rest


def _imperative(task: str) -> str:
    """Lower the first letter, unless the first word is a name or an abbreviation."""
    first = task.split(" ", 1)[0]
    if first[:1].isupper() and first[1:] == first[1:].lower():
        return task[:1].lower() + task[1:]
    return task


def _vary(wish: str, rng: random.Random) -> str:
    """The same wish in slightly other words."""
    if rng.random() < 0.5:
        wish = wish.replace("`", "")
    if rng.random() < 0.5:
        wish = re.sub(r"\s*\([^()]*\)", "", wish).strip() or wish
    if rng.random() < 0.12:
        # The half before the first comma is often the whole of what somebody asks.
        short = re.split(r",| while | so that | and then ", wish, maxsplit=1)[0].strip()
        wish = short if len(short.split()) >= 3 else wish
    if rng.random() < 0.35:
        wish = re.sub(
            r"\b(a|the) (specific|specified|given|particular) ", rng.choice(("a ", "the ", "my ", "one ")), wish
        )
    words = wish.split(" ")
    strength = rng.choice((0.0, 0.0, 0.25, 0.5))
    words = [_synonym(word, rng) if rng.random() < strength else word for word in words]
    if rng.random() < 0.12:
        words = [word for word in words if word not in ("a", "an", "the")] or words
    return " ".join(words)


def _synonym(word: str, rng: random.Random) -> str:
    bare = word.rstrip(",.")
    choices = _SYNONYMS.get(bare)
    return rng.choice(choices) + word[len(bare) :] if choices else word


def _keywords(wish: str, name: str | None, rng: random.Random) -> str:
    """As typed into a search box: the words that matter, the command before or after them."""
    words = [word for word in wish.split(" ") if not _STOPWORDS.fullmatch(word)] or wish.split(" ")
    if name is not None:
        words = [name, *words] if rng.random() < 0.6 else [*words, name]
    return " ".join(words)


def _finish(text: str, rng: random.Random, protect: str = "") -> str:
    """Capital, punctuation, politeness and the odd typing error."""
    if rng.random() < 0.05:
        text = _misspell(text, rng, protect)
    if rng.random() < 0.08:
        text = rng.choice(_OPENERS) + text
    if rng.random() < 0.35:
        return text.rstrip("?.")
    return text[:1].upper() + text[1:] if rng.random() < 0.7 else text


def _misspell(text: str, rng: random.Random, protect: str) -> str:
    """Swap, drop or double a letter inside one longer word that is not the command's name."""
    words = text.split(" ")
    able = [at for at, word in enumerate(words) if len(word) > 4 and word.isalpha() and word not in protect]
    if not able:
        return text
    at = rng.choice(able)
    word, cut = words[at], rng.randrange(1, len(words[at]) - 2)
    words[at] = rng.choice(
        (
            word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :],
            word[:cut] + word[cut + 1 :],
            word[:cut] + word[cut] + word[cut:],
        )
    )
    return " ".join(words)
