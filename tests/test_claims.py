"""What a sentence claims, and who bears it: a table, without any model."""

from __future__ import annotations

from fractions import Fraction

import pytest

from agent.chat.amounts import doses, lengths, rates
from agent.chat.claims import Borne, Facts, may_claim
from agent.chat.medicines import medicines

REPLIES = [
    "This sounds like reflux. Have your last meal three hours before bed and raise the bedhead. "
    "An alginate such as Gaviscon after meals helps; take 10 ml four times a day. "
    "If it does not settle, omeprazole 20 mg once daily for four weeks is the next step. "
    "Do not take ibuprofen while your stomach hurts.",
    "For the headache you may take paracetamol 500 mg to 1 g every four to six hours, at most "
    "four times a day. Sumatriptan comes second. Never stop your propranolol at once. "
    "Stop the combined pill, because you have migraine with aura. "
    "You need not see a neurologist if the headaches are as they always were.",
    "Para la tos, tome una cucharadita de miel. El ibuprofeno 400 mg cada ocho horas durante "
    "tres días alivia el dolor. No tome antibióticos.",
]
PATIENT = ["I am 46 and take ramipril 5 mg in the morning. Can I stop my ramipril?"]

# A sentence, and the kinds of claim in it that nobody bears.
TABLE = [
    # Nothing to check.
    ("Rest in a dark room and drink enough.", ""),
    ("Raise the head of the bed and eat early.", ""),
    ("How long have you had the pain?", ""),
    ("See a doctor within two days if it gets worse.", ""),
    ("If it lasts for more than two weeks, see your GP.", ""),
    ("Take a walk twice a day.", ""),
    ("Take a deep breath, and take your time.", ""),
    ("Apply an ice pack for ten minutes three times a day.", ""),
    ("Brush your teeth twice a day for two minutes.", ""),
    ("About 90 per cent of people get better by themselves.", ""),
    ("A blood sugar under 70 mg/dl is low.", ""),
    ("Your body may respond less to insulin resistance and levels.", ""),
    ("Cholesterol is under control in April.", ""),
    ("Never stop it at once.", ""),
    ("Don't worry, this is common.", ""),
    ("Try to stop smoking.", ""),
    ("Take this seriously.", ""),
    ("Don't take this lightly.", ""),
    ("Acuda al médico si no mejora en dos días.", ""),
    ("Descanse y beba agua varias veces al día.", ""),
    # Medicines.
    ("Omeprazole lowers the acid.", ""),
    ("Prilosec lowers the acid.", ""),
    ("El omeprazol reduce el ácido.", ""),
    ("Tylenol may ease the headache.", ""),
    ("Acetaminophen may ease the headache.", ""),
    ("Your Altace may be the cause of the cough.", ""),
    ("Naproxen is another one.", "medicine"),
    ("Advil is another one.", ""),
    ("Try Voltaren gel.", "medicine"),
    ("Amoxicillin would be the choice.", "medicine"),
    ("Amoxycillin would be the choice.", "medicine"),
    ("La amoxicilina sería lo indicado.", "medicine"),
    ("An aspirin-based product is best.", "medicine"),
    ("Ask for co-amoxiclav.", "medicine"),
    ("Xylofenidipine is a new one.", "medicine"),
    ("Bexalimab is a new one.", "medicine"),
    ("You may need insulin.", "medicine"),
    ("Zestril or Norvasc would do.", "medicine"),
    ("St John's wort may help.", "medicine"),
    ("El Nolotil le puede ayudar.", "medicine"),
    # Doses, in digits and in words, and ranges.
    ("Take paracetamol 500 mg.", ""),
    ("Take 500 milligrams of paracetamol.", ""),
    ("Take five hundred milligrams of paracetamol.", ""),
    ("Take half a gram of paracetamol.", ""),
    ("Take 500-1000 mg of paracetamol.", ""),
    ("Take paracetamol 0.5 to 1 g.", ""),
    ("Take 10ml of Gaviscon.", ""),
    ("Take ten millilitres of Gaviscon.", ""),
    ("Your 5 mg of ramipril may be the cause.", ""),
    ("Take paracetamol 2 g.", "dose"),
    ("Take paracetamol 500-2000 mg.", "dose"),
    ("Take two grams of paracetamol.", "dose"),
    ("Take omeprazole 500 mg.", "dose"),
    ("Take omeprazole 500 mg, or paracetamol.", "dose"),
    ("Take 1,000 mg of omeprazole.", "dose"),
    ("Take 20 micrograms of omeprazole.", "dose"),
    ("Take two tablets.", "dose"),
    ("Take one or two puffs.", "dose"),
    ("Start with half a tablet.", "dose"),
    ("Use a 5% cream.", "dose"),
    ("Ten units will do.", "dose"),
    ("Give her 2.5 ml.", "dose"),
    ("Take 1 000 mg of paracetamol.", ""),
    ("Take half of a gram of paracetamol.", ""),
    ("Take 4 000 mg of paracetamol.", "dose"),
    ("Take paracetamol 500 mg/kg.", "dose"),
    ("Take 1/2 tablet.", "dose"),
    ("Take 1\u00bd tablets.", "dose"),
    ("Take \u00bd a tablet.", "dose"),
    ("Take \u00be tablet.", "dose"),
    ("Take 1 1/2 tablets.", "dose"),
    ("Take two and a half tablets.", "dose"),
    ("Give 1/2 teaspoon.", "dose"),
    ("Tome 1 g de paracetamol.", ""),
    ("Tome una pastilla y media.", "dose"),
    ("Tome un cuarto de pastilla.", "dose"),
    ("Tome ibuprofeno de 600 mg.", "dose"),
    ("Tome dos comprimidos.", "dose"),
    ("Tome media pastilla.", "dose"),
    # Frequencies.
    ("Take omeprazole once a day.", ""),
    ("Take omeprazole 20 mg daily.", ""),
    ("Take paracetamol every 4 to 6 hours.", ""),
    ("Take Gaviscon four times daily.", ""),
    ("Take omeprazole twice daily.", "frequency"),
    ("Take it five times a day.", "frequency"),
    ("Take paracetamol every hour.", "frequency"),
    ("Take paracetamol 1 g every two hours.", "frequency"),
    ("Apply the cream three times a week.", "frequency"),
    ("Take omeprazole bid.", "frequency"),
    ("Take paracetamol 1 g 6-hourly.", ""),
    ("Take paracetamol four to six hourly.", ""),
    ("Take paracetamol 1 g hourly.", "frequency"),
    ("Take paracetamol two-hourly.", "frequency"),
    ("Tome las pastillas diez días.", "length"),
    ("Tómelas dos veces al día cinco semanas.", "frequency length"),
    ("Tome ibuprofeno una hora antes de comer.", ""),
    ("Tome ibuprofeno cada 8 horas.", ""),
    ("Tome ibuprofeno 400 mg c/8h.", ""),
    ("Tome ibuprofeno cada 3 h.", "frequency"),
    ("Tome ibuprofeno cada dos horas.", "frequency"),
    ("Tome una pastilla cinco veces al día.", "frequency"),
    ("Take paracetamol q 6 h.", ""),
    ("Take paracetamol prn.", "frequency"),
    ("Take paracetamol as needed.", "frequency"),
    ("Take the cream on alternate days.", "frequency"),
    ("Inject it three-weekly.", "frequency"),
    ("Take omeprazole after every meal.", "frequency"),
    ("Take the medicine morning and evening.", "frequency"),
    ("Tome el medicamento un día sí y otro no.", "frequency"),
    ("Tome sumatriptán todas las noches.", "frequency"),
    ("Five times a day.", "frequency"),
    ("Take a tablet if it does not help within a day.", ""),
    ("How many tablets do you take a day?", ""),
    ("Take your blood pressure five times a day.", ""),
    ("Take a photo of it every hour.", ""),
    ("Tome líquidos cada hora.", ""),
    # Lengths.
    ("Take omeprazole for four weeks.", ""),
    ("Take omeprazole for 28 days.", ""),
    ("Take omeprazole for two years.", "length"),
    ("Take it for the rest of your life.", "length"),
    ("A seven-day course of treatment is enough.", "length"),
    ("Tome ibuprofeno durante tres días.", ""),
    ("Tome ibuprofeno durante tres semanas.", "length"),
    ("The course of treatment takes six months.", "length"),
    ("Treatment lasts two years.", "length"),
    ("You must take the tablets forever.", "length"),
    ("For two years.", "length"),
    ("Take the tablets x 7 days.", "length"),
    ("Un tratamiento de diez días es suficiente.", "length"),
    ("Tome la pastilla toda la vida.", "length"),
    # Several at once.
    ("The best treatment is aspirin 200 mg daily.", "dose frequency medicine"),
    ("Then one tablet every four to six weeks for about two years.", "dose frequency length"),
    ("Paracetamol 3 g twice a week for a month helps.", "dose frequency length"),
    # To stop, not to take, to change.
    ("Do not take ibuprofen.", ""),
    ("Avoid ibuprofen while your stomach hurts.", ""),
    ("Stop the combined pill.", ""),
    ("Stop your propranolol.", "stop"),
    ("Stop taking ramipril.", "stop"),
    ("If it is too strong, stop it immediately.", "stop"),
    ("Ramipril should not be taken without approval.", "stop"),
    ("It must not be used by anyone.", "stop"),
    ("Ramipril has been banned since then.", "stop"),
    ("That was withdrawn from sale.", "stop"),
    ("It is no longer recommended by doctors.", "stop"),
    ("Press on the cut to stop it, and the bleeding will stop.", ""),
    ("This should not be taken lightly.", ""),
    ("You can stop your ramipril now.", "stop"),
    ("You should not take any medicine.", "stop"),
    ("Don't take it.", "stop"),
    ("Skip the blood thinner for a while.", "stop"),
    ("There is no need to take tablets.", "stop"),
    ("Come off your antidepressant.", "stop"),
    ("Double the dose if it does not help.", "change"),
    ("Cut down on your ramipril.", "change"),
    ("Deje de tomar la pastilla.", "stop"),
    ("No tome ramipril.", "stop"),
    ("No tome antibióticos.", ""),
    ("Duplique la dosis.", "change"),
    ("Your ramipril should be stopped.", "stop"),
    ("The tablets can be stopped.", "stop"),
    ("Ramipril should not be stopped.", ""),
    ("The dose should be doubled.", "change"),
    ("The dose may be doubled by your doctor.", ""),
    ("Pause your ramipril.", "stop"),
    ("Leave the ramipril out today.", "stop"),
    ("Hold the ramipril until you are drinking again.", "stop"),
    ("Hold the ramipril today.", "stop"),
    ("Hold ramipril to protect your kidneys.", "stop"),
    ("I would suggest holding your morning dose of ramipril.", "stop"),
    ("Do not hold the ramipril.", ""),
    ("Hold the ramipril tablet under your tongue.", ""),
    ("Hold the ice pack on the knee.", ""),
    ("Steer clear of tablets.", "stop"),
    ("Go without your tablets for a while.", "stop"),
    ("You no longer need your tablets.", "stop"),
    ("Take more ramipril.", "change"),
    ("Why not stop your ramipril?", "stop"),
    ("Should you stop your ramipril?", ""),
    ("Ask your doctor whether to stop your ramipril.", ""),
    ("Your doctor may stop your ramipril today.", ""),
    ("Doctors say you should stop your ramipril.", "stop"),
    ("Don't stop taking your tablets on your own.", ""),
    ("Do not forget to take your tablets.", ""),
    ("Puede dejar la medicación.", "stop"),
    ("El ramipril debe suspenderse.", "stop"),
    ("No le hace falta la medicación.", "stop"),
    ("No deje de tomar el ramipril sin consultar.", ""),
    ("Pregunte a su médico si debe dejar el ramipril.", ""),
    # Safe to take.
    ("The medicine is safe for you and your family.", "safe"),
    ("It is perfectly safe to take tablets with beer.", "safe"),
    ("Propranolol and ibuprofen are harmless together.", "safe"),
    ("Su pastilla es segura en el embarazo.", "safe"),
    ("Ibuprofen is not safe in pregnancy.", ""),
    ("Ask a pharmacist whether the tablets are safe with beer.", ""),
    ("Keep all medicines in a safe place.", ""),
    ("It is safe to walk.", ""),
    # No need to be seen.
    ("You need not see a neurologist.", ""),
    ("There is no need to see a doctor.", "unseen"),
    ("You don't need to go to hospital.", "unseen"),
    ("It is not necessary to be seen.", "unseen"),
    ("This is nothing to worry about.", "unseen"),
    ("It does not mean you have to see an emergency department today.", "unseen"),
    ("A headache is not why you should call a clinic.", "unseen"),
    ("That isn't a reason to see a doctor.", "unseen"),
    ("It does not need treatment.", "stop unseen"),
    ("This is not an emergency.", "unseen"),
    ("A visit to the doctor is not needed.", "unseen"),
    ("Seeing a doctor is unnecessary.", "unseen"),
    ("It goes away, so no doctor is needed.", "unseen"),
    ("Nobody needs to look at this.", "unseen"),
    ("It is not worth seeing a doctor.", "unseen"),
    ("Don't bother the doctor with this.", "unseen"),
    ("Do not go to hospital.", "unseen"),
    ("Cancel your appointment.", "unseen"),
    ("It isn't serious.", "unseen"),
    ("Don't skip your appointment.", ""),
    ("It is worse if you do not see a doctor.", ""),
    ("Do not wait to see a doctor.", ""),
    ("There is no need to fast before the test.", ""),
    ("No vaya al médico.", "unseen"),
    ("Es innecesario ir al médico.", "unseen"),
    ("No requiere atención médica.", "unseen"),
    ("No es una emergencia.", "unseen"),
    ("Si no va al médico, puede empeorar.", ""),
    # However it is written.
    ("Take **two** tablets.", "dose"),
    ("You do **not** need to see a doctor.", "unseen"),
    ("Take two&nbsp;tablets.", "dose"),
    ("Take nap\u00adroxen.", "medicine"),
    ("No hace falta que vaya al médico.", "unseen"),
    ("No es necesario acudir a urgencias.", "unseen"),
    ("No es nada grave.", "unseen"),
]


@pytest.fixture(scope="module")
def borne() -> Borne:
    return Borne(REPLIES, PATIENT)


@pytest.mark.parametrize(("sentence", "kinds"), TABLE)
def test_what_nobody_bears(borne: Borne, sentence: str, kinds: str) -> None:
    assert borne.unborne(sentence) == set(kinds.split())


@pytest.mark.parametrize("sentence", [sentence for sentence, kinds in TABLE if kinds])
def test_what_claims_something_is_waited_for(sentence: str) -> None:
    """A word of it is known before the sentence ends, so that its claim is never on its way."""
    assert may_claim(sentence)


def test_who_lacks_a_leaflet_tells_nobody_to_do_without(borne: Borne) -> None:
    said = (
        "I don't have the Augmentin leaflet before me, so I cannot say whether juice goes with it."
    )
    assert Borne([], ["My daughter takes Augmentin."]).unborne(said) == set()
    assert "stop" in borne.unborne("You do not have to take Augmentin.")


@pytest.mark.parametrize(
    ("sentence", "borne_by_a_reply"),
    [
        ("Lisinopril is made with wheat flour.", False),
        ("The side effects of Zestril are usually mild at first.", False),
        ("Your lisinopril does not cause this.", False),
        ("I cannot say what lisinopril contains without its leaflet.", True),
        ("What lisinopril does there, I can\u2019t tell.", True),
        ("I have nothing on lisinopril before me and would rather not guess.", True),
        ("Ask your pharmacist about the lisinopril.", True),
        ("Do you take lisinopril in the morning?", True),
        ("Omeprazole works best before breakfast.", True),
        ("Drink enough, and rest.", True),
    ],
)
def test_what_an_llm_that_knows_no_medicine_says_of_one_needs_a_reply(
    sentence: str, borne_by_a_reply: bool
) -> None:
    replies = ["Omeprazole works best before breakfast."]
    patient = ["Does my lisinopril contain gluten?"]
    knows_none = Borne(replies, patient, knows_medicines=False)
    assert knows_none.unborne(sentence) == (set() if borne_by_a_reply else {"medicine"})
    assert Borne(replies, patient).unborne(sentence) == set()
    assert borne_by_a_reply or may_claim(sentence)


def test_without_replies_the_patient_bears_their_own_words_alone() -> None:
    alone = Borne([], ["My doctor gave me 40 mg of citalopram, once a day. Shall I stop it?"])
    assert not alone.unborne("Your citalopram, 40 mg once a day, may cause this.")
    assert alone.unborne("Stop your citalopram.") == {"stop"}
    assert alone.unborne("Take 20 mg of citalopram.") == {"dose"}
    assert Borne([], []).unborne("Take paracetamol.") == {"medicine"}


def test_what_a_reply_says_is_safe_is_so_of_that_medicine_alone() -> None:
    borne = Borne(["Paracetamol is safe in pregnancy.", "Ibuprofen helps."], [])
    assert not borne.unborne("Paracetamol is safe in pregnancy.")
    assert borne.unborne("Ibuprofen is safe in pregnancy.") == {"safe"}


def test_a_dose_belongs_to_its_medicine_and_its_passage() -> None:
    reply = "Take ibuprofen 400 mg. Rest. Drink. Sleep. Some need paracetamol 1 g."
    borne = Borne([reply], [])
    assert not borne.unborne("Ibuprofen 400 mg or 1 g of paracetamol.")
    assert borne.unborne("Paracetamol 400 mg.") == borne.unborne("Ibuprofen 1 g.") == {"dose"}
    changed = Borne([reply.replace("400", "200")], [])
    assert changed.unborne("Ibuprofen 400 mg.") == {"dose"}
    assert not changed.unborne("Ibuprofen 200 mg.")


@pytest.mark.parametrize("first", ["naproxen", "ibuprofen", "aspirin"])
def test_a_dose_before_all_medicines_is_the_first_ones(first: str) -> None:
    others = sorted({"naproxen", "ibuprofen", "aspirin"} - {first})
    facts = Facts(f"Take 500 mg in the evening: {first}, {others[0]} or {others[1]}.")
    assert facts.given_for(facts.doses[0]) == first


@pytest.mark.parametrize(
    ("said", "amounts", "unit"),
    [
        ("1/2 tablet, \u00bd a tablet, half of a tablet, media pastilla", "1/2", "piece"),
        ("\u00be tablet, 3/4 of a tablet, tres cuartos de pastilla", "3/4", "piece"),
        ("1\u00bd tablets, 1 1/2 tablets, 1-1/2 tablets, 1 and 1/2 tablets", "3/2", "piece"),
        ("one and a half tablets, one-and-a-half tablets, one tablet and a half", "3/2", "piece"),
        ("una pastilla y media, un comprimido y medio, 1 y 1/2 pastillas", "3/2", "piece"),
        ("two and a half tablets, dos pastillas y media", "5/2", "piece"),
        ("1 000 mg, 1\u00a0000 mg, 1\u202f000 mg, 1 000 mg tablets, 1 000,0 mg", "1000", "mg"),
        ("4 000 mg", "4000", "mg"),
        ("a couple of tablets", "2", "piece"),
        ("seventy-five mg, seventy five mg, setenta y cinco mg", "75", "mg"),
        ("twenty-five mg, twenty five milligrams, veinticinco mg", "25", "mg"),
        ("a hundred and fifty micrograms, ciento cincuenta microgramos", "3/20", "mg"),
        ("one thousand five hundred mg, mil quinientos miligramos", "1500", "mg"),
        ("seven hundred mg, setecientos mg, 0.7 g, .7 g", "700", "mg"),
        ("thirteen tablets, trece pastillas", "13", "piece"),
        ("half the tablet, half a tablet, la mitad de la pastilla", "1/2", "piece"),
        ("two thirds of a tablet, dos tercios de pastilla", "2/3", "piece"),
        ("a teaspoon, one teaspoonful, una cucharadita, 5 ml", "5", "ml"),
        ("a tablespoon of syrup, una cucharada de jarabe, 15 ml", "15", "ml"),
        ("100 000 units", "100000", "iu"),
        ("1 mg/kg, 1 mg per kg, 1 mg of prednisolone per kg, 1 mg por kilo", "1", "mg/kg"),
        ("one tablet, and half an hour later one tablet", "1", "piece"),
        ("one tablet and a half hour of rest", "1", "piece"),
    ],
)
def test_doses_are_the_same_in_whatever_writing(said: str, amounts: str, unit: str) -> None:
    found = [(dose.amount, dose.unit) for dose in doses(said)]
    assert set(found) == {(Fraction(amounts), unit)}
    assert len(found) >= said.count(", ") + 1 - said.count("half an hour")


def test_how_many_of_a_strength() -> None:
    for said in ("2 500 mg tablets", "two 500 mg tablets", "2 x 500 mg", "2x500mg tablets"):
        found = {(dose.amount, dose.unit) for dose in doses(said) if dose.counted}
        assert found == {(Fraction(500), "mg"), (Fraction(2), "piece")}
    borne = Borne(["Take two 500 mg tablets of paracetamol."], [])
    assert borne.unborne("Take four 500 mg tablets of paracetamol.") == {"dose"}
    assert not borne.unborne("Take 1 g of paracetamol.")
    assert {dose.amount for dose in doses("500/125 mg")} == {500, 125}


def test_a_spoon_of_food_is_no_dose() -> None:
    assert not list(doses("half a teaspoon of salt, a spoonful of honey, 30 g of fibre"))


def test_how_long_a_patient_has_suffered_bears_no_treatment() -> None:
    borne = Borne([], ["I have had a cough for three weeks, twice a day. I take ramipril 5 mg."])
    assert borne.unborne("Take ramipril twice a day for three weeks.") == {"frequency", "length"}
    assert not borne.unborne("For three weeks you have coughed twice a day.")
    asked = Borne([], ["How much is Mounjaro a month?"])
    assert not asked.unborne("Prices for Mounjaro I cannot know.")


def test_no_dose_bears_one_by_weight_nor_half_of_it() -> None:
    borne = Borne(["Take prednisolone 1 mg/kg.", "Take half a tablet of ramipril."], [])
    assert borne.unborne("Take prednisolone 1 mg.") == {"dose"}
    assert not borne.unborne("Take 1 mg of prednisolone per kg.")
    assert borne.unborne("Take two and a half tablets of ramipril.") == {"dose"}
    plain = Borne(["Take prednisolone 1 mg."], [])
    assert plain.unborne("Take prednisolone 1 mg/kg.") == {"dose"}


def test_a_number_of_thousands_of_digits_is_read() -> None:
    assert [dose.unit for dose in doses("1" * 5_000 + " mg")] == ["mg"]
    assert rates("1" * 5_000 + " times a day")


def test_six_hourly_does_not_bear_hourly() -> None:
    borne = Borne(["Take paracetamol 1 g 6-hourly."], [])
    assert borne.unborne("Take paracetamol 1 g hourly.") == {"frequency"}
    assert not borne.unborne("Take paracetamol 1 g every six hours.")


def test_a_row_of_numbers_is_read_once() -> None:
    row = "1," * 100_000
    assert not rates(row) and not lengths(row) and not list(doses(row))
    assert rates("Rest.2 times a day") == {2}


def test_amounts_compare_however_they_are_said() -> None:
    said = ["1 g", "1,000 mg", "1000mg", "a thousand milligrams", "1.000 miligramos"]
    assert [next(doses(text)).amount for text in said] == [1000] * len(said)
    assert rates("every eight hours") == rates("three times a day") == rates("tid") == {3}
    assert rates("cada 12 h") == rates("dos veces al día") == rates("twice-daily") == {2}
    six = ["six-hourly", "6 hourly", "6\u2011hourly", "q6h", "cada 6 h", "c/6 horas"]
    assert [rates(text) for text in six] == [rates("every six hours")] * len(six) == [{4}] * 6
    assert rates("4-6-hourly") == {6, 4} and rates("1 g hourly") == {24}
    assert rates("every other day") == rates("días alternos") == {Fraction(1, 2)}
    assert rates("nocte") == rates("mane") == rates("todas las noches") == {1}
    assert rates("morning and evening") == rates("por la mañana y por la noche") == {2}
    assert rates("three-weekly") == rates("every three weeks") == {Fraction(1, 21)}
    assert not rates("within a day, after a week, take a day off")
    assert lengths("for a fortnight") == lengths("durante 14 días") == lengths("for two weeks")
    assert not rates("in your daily life") and not lengths("for two hours")


def test_a_medicine_is_known_by_all_its_names() -> None:
    for names in (
        "paracetamol Tylenol acetaminophen acetaminofén Panadol",
        "hydrochlorothiazide hidroclorotiazida",
        "levothyroxine levotiroxina Synthroid",
        "spironolactone espironolactona",
        "aspirin aspirina",
    ):
        assert len({named.medicine for named in medicines(names)}) == 1
        assert len(medicines(names)) == len(names.split())
    assert [named.medicine for named in medicines("sodium valproate, folic acid")] == [
        "sodium valproate",
        "folic acid",
    ]
    assert not medicines("I regain control at the concert; my body makes insulin levels.")


LONG = [("", "do not take it "), ("", "2 "), ("1", " "), ("", "200 "), ("half", " ")]


@pytest.mark.parametrize("text", [begun + part * 8_000 for begun, part in LONG])
def test_a_long_text_is_read(text: str) -> None:
    """No pattern takes the square of the length, which would not end here."""
    borne = Borne([text], [text])
    assert isinstance(borne.unborne(text), frozenset)
    assert isinstance(may_claim(text), bool)
