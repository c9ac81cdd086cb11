"""Which of Unicode's pictures are subjects, and by which words each may be asked for.

Left out: flags, skin tones, families, people by sex or gesture, hands that offend, signs made of letters or digits, clocks by
the hour, moons by the night, plain shapes by colour (a colour is a word of its own here).
"""

import collections
import re

GROUPS = {
    "smileys-emotion": None,
    "animals-nature": None,
    "food-drink": None,
    "travel-places": None,
    "activities": None,
    "objects": None,
    "people-body": {
        "hand-fingers-open", "hand-fingers-partial", "hand-single-finger", "hand-fingers-closed", "hands", "hand-prop", "body-parts",
    },
}  # fmt: skip
PEOPLE = """astronaut; ninja; detective; guard; cook; farmer; firefighter; police officer; scientist; artist; singer; prince;
princess; Santa Claus; superhero; supervillain; mage; fairy; vampire; mermaid; elf; genie; zombie; baby; footprints"""
SIGNS = """warning; no entry; radioactive; biohazard; recycling symbol; yin yang; peace symbol; atom symbol; fleur-de-lis;
trident emblem; infinity; check mark; cross mark; red question mark; red exclamation mark"""
WITHOUT = """middle finger; ZZZ; hundred points; backhand index pointing left; backhand index pointing up;
backhand index pointing down; index pointing up; raised back of hand; pinching hand; selfie; writing hand;
orange heart; yellow heart; green heart; blue heart; purple heart; brown heart; black heart; white heart; heart suit; heart decoration;
left speech bubble; right anger bubble; eye in speech bubble; hole; heart exclamation;
globe showing Americas; globe showing Asia-Australia; map of Japan; national park; building construction; Japanese post office;
post office; love hotel; convenience store; sunrise; cityscape at dusk; bridge at night; oncoming bus; oncoming police car;
oncoming taxi; oncoming automobile; railway car; high-speed train; light rail; tram car; mountain railway; trolleybus; minibus;
station; metro; bus stop; stop sign; construction; suspension railway; aerial tramway; airplane departure; airplane arrival; motor boat;
waxing crescent moon; first quarter moon; waxing gibbous moon; waning gibbous moon; last quarter moon; waning crescent moon;
first quarter moon face; last quarter moon face; sun behind small cloud; sun behind large cloud; snowman without snow;
umbrella with rain drops; closed umbrella; foggy; fog; milky way; 2nd place medal; 3rd place medal; mahjong red dragon; joker;
flower playing cards; pool 8 ball; moon viewing ceremony; tanabata tree; pine decoration; admission tickets; reminder ribbon;
muted speaker; speaker low volume; speaker medium volume; bell with slash; mobile phone with arrow; fax machine; pager; trackball;
computer disk; dvd; camera with flash; magnifying glass tilted right; notebook; ledger; page facing up; bookmark tabs; blue book;
orange book; rolled-up newspaper; yen banknote; euro banknote; pound banknote; chart increasing with yen; e-mail; incoming envelope;
envelope with arrow; outbox tray; inbox tray; closed mailbox with lowered flag; open mailbox with lowered flag; 
open mailbox with raised flag; ballot box with ballot; open file folder; card index dividers; calendar; spiral calendar; spiral notepad;
card index; two hearts; file cabinet; card file box; chart decreasing; round pushpin; linked paperclips; locked with pen; locked with key; old key;
hammer and pick; white cane; placard; hourglass not done; timer clock; front-facing baby chick; ox; two-hump camel; guide dog;
service dog; woman’s clothes; heavy dollar sign; motorized wheelchair; film frames; person: beard; lab coat; carp streamer; 
smiling face; kissing face; kissing face with smiling eyes; face exhaling; face in clouds; heart with ribbon; kiss mark"""


# Words that captions.py gives a meaning of its own; no tag may be one.
RESERVED = set("""a an the and at on in of two three four small big mirrored left right top bottom center background white black
red orange yellow green teal blue purple pink brown gray""".split())


def names(text):
    return {n.strip() for n in text.replace("\n", " ").split(";")}


def plain(text):
    """Lower case, straight quotes, no colons."""
    return re.sub(r"\s+", " ", text.lower().replace("’", "'").replace("“", "").replace("”", "").replace(":", "")).strip()


def choose(data, meta, have, key):
    people, signs, without = names(PEOPLE), names(SIGNS), names(WITHOUT)
    found = []
    for entry in sorted((e for e in data if "group" in e), key=lambda e: e["order"]):
        group, sub = meta["groups"][str(entry["group"])], meta["subgroups"][str(entry["subgroup"])]
        label, code = entry["label"], key(entry["hexcode"])
        listed = group in GROUPS and (GROUPS[group] is None or sub in GROUPS[group]) and "clock" not in label + sub
        listed = listed and not re.search(r"o’clock|-thirty", label) or label in people or label in signs
        if label == "alarm clock":
            listed = True
        if listed and label not in without and all(code in keys for keys in have.values()):
            tags = [plain(t) for t in entry.get("tags", [])]
            found.append({"key": code, "name": plain(label), "group": group, "subgroup": sub, "tags": tags})
    labels = {s["name"] for s in found}
    uses = collections.Counter(t for s in found for t in set(s["tags"]))
    for subject in found:
        # A word that asks for many things asks for none; another's name is another's.
        subject["tags"] = [
            t for t in dict.fromkeys(subject["tags"])
            if uses[t] <= 4 and t not in labels | RESERVED and re.fullmatch(r"[a-z][a-z' -]{2,24}", t) and t.count(" ") < 3
        ]  # fmt: skip
        short = subject["name"].removesuffix(" face")
        if short != subject["name"] and short not in labels and subject["group"] == "animals-nature":
            subject["tags"].insert(0, short)
    return found


def some(subjects, count, named):
    """So many of the subjects: those named, then of each subgroup one in turn (of animals three), in Unicode's order."""
    queues = collections.defaultdict(list)
    for subject in subjects:
        if subject["name"] not in named:
            queues[subject["subgroup"]].append(subject["key"])
    kept = [s["key"] for s in subjects if s["name"] in named]
    while len(kept) < count and any(queues.values()):
        for subgroup, queue in queues.items():
            taken = 3 if subgroup.startswith("animal-") else 1
            kept += queue[:taken]
            del queue[:taken]
    kept = set(kept[:count])
    return [s for s in subjects if s["key"] in kept]
