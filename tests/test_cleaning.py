"""What is kept, changed and dropped of rows, and why: a table of short texts."""

from __future__ import annotations

import pytest

from index_store.boilerplate import is_courtesy, without_advertisements
from index_store.cleaning import Cleaner, clean, normalise
from index_store.dataset import Dialogue
from index_store.faults import Fault, Faults
from index_store.markup import text_of

ADVERTISED, HTML, COURTESY = "advertisement cut", "HTML made text", "boilerplate only"

# A reply, what is left of it ("": it is dropped), and why it is not as it was.
TABLE: list[tuple[str, str, str | None]] = [
    # Advertisements, wherever they stand.
    ("Rest. For further information consult a neurologist online -->", "Rest.", ADVERTISED),
    (
        "Use it daily. For more information consult an acne specialist online --> "
        "https://www.icliniq.com/ask-a-doctor-online/dermatologist/acne",
        "Use it daily.",
        ADVERTISED,
    ),
    ("Rest.For further doubts consult a sexologist online -->.", "Rest.", ADVERTISED),
    ("Rest.\n\nRevert back with the reports to a urologist online.---> x.org", "Rest.", ADVERTISED),
    (
        "Rest. For more information consult an ENT surgeon online Take care.",
        "Rest. Take care.",
        ADVERTISED,
    ),
    (
        "Rest. For any further queries, consult a dentist online. Take care.",
        "Rest. Take care.",
        ADVERTISED,
    ),
    (
        "Consult a dermatologist online --> https://x.com/a?b=c. Then wash it with soap.",
        "Then wash it with soap.",
        ADVERTISED,
    ),
    (
        "For more information consult a doctor online --&gt; <a href='//x.com'>www.x.com</a> Rest.",
        "Rest.",
        ADVERTISED,
    ),
    (
        "Please consult a cardiologist online --> www.x.com\nDrink water.",
        "Drink water.",
        ADVERTISED,
    ),
    ("Drink water --> https://www.icliniq.com/water", "Drink water", ADVERTISED),
    ("Rest and drink. -->", "Rest and drink.", ADVERTISED),
    ("Rest. For follow up please ask at http://bit.ly/askme.", "Rest.", ADVERTISED),
    ("Rest. You can ask me directly at http://doctor.healthcaremagic.com/1", "Rest.", ADVERTISED),
    ("Rest. To consult me directly click https://urldoc.com/a", "Rest.", ADVERTISED),
    (
        "Rest. If you have any other uncertainties you can ask me directly at any time at the link "
        "below: http://doctor.healthcaremagic.com/Funnel?page=ask&docId=1 Rest on.",
        "Rest. Rest on.",
        ADVERTISED,
    ),
    ("Rest. Reach me again through my profile on HealthTap.", "Rest.", ADVERTISED),
    ("Rest. Click here to consult a doctor online: http://bit.ly/2abc", "Rest.", ADVERTISED),
    ("Rest. Ask a doctor online now at www.iCliniq.com!", "Rest.", ADVERTISED),
    ("Rest. For more information consult a pulmonologist online at icliniq.", "Rest.", ADVERTISED),
    ("Rest. Please consult with a specialist online for more details.", "Rest.", ADVERTISED),
    (
        "Rest. Get a second opinion online from our panel of experts --> www.2nd.com",
        "Rest.",
        ADVERTISED,
    ),
    ("Rest. Book an appointment with our doctors at www.practo.com/a.", "Rest.", ADVERTISED),
    ("Rest. Download our app from the Play Store to chat with a doctor.", "Rest.", ADVERTISED),
    (
        "Rest.\nFor more information consult a\ndermatologist online -->\nhttps://www.x.com",
        "Rest.",
        ADVERTISED,
    ),
    (
        "Rest. For more information consult an internist doctor\nonline at www.x.com. Drink.",
        "Rest. Drink.",
        ADVERTISED,
    ),
    (
        "Descanse. Para más información consulte a un dermatólogo en línea --> x.com",
        "Descanse.",
        ADVERTISED,
    ),
    ("Send the photos and consult a doctor online --> x.com", "Send the photos", ADVERTISED),
    ("Please consult a sleep specialist online. CBT-I helps.", "CBT-I helps.", ADVERTISED),
    ("For more information consult a hematologist online.", "", COURTESY),
    ("Hi. For further doubts consult a sexologist online -->", "", COURTESY),
    ("-->", "", None),
    # Advice that only sounds like one.
    (
        same := "Consult a physician in person within two days, since the rash is spreading.",
        same,
        None,
    ),
    (same := "Please consult a dermatologist online or in person within two days.", same, None),
    (same := "Consult a doctor at once.", same, None),
    (same := "For further pain, consult the surgeon who operated on you.", same, None),
    (same := "For more information read the leaflet; ask a doctor if it gets worse.", same, None),
    (same := "You can find the exercises online and do them twice a day.", same, None),
    (same := "Do not buy antibiotics online. Ask your doctor for a culture.", same, None),
    (same := "If it stays, consult a dermatologist online", same, None),
    (same := "The count fell from 9 -> 6 in a week.", same, None),
    (same := "The chain is platelets --> clot --> stroke, so take aspirin.", same, None),
    (
        same
        := "Read the advice of the NHS at https://www.nhs.uk/conditions/acne before you decide.",
        same,
        None,
    ),
    (same := "Contact a poison centre if he swallowed more than two.", same, None),
    (
        same := "For more information about Medicare, visit http://www.medicare.gov for a booklet.",
        same,
        None,
    ),
    (same := "For additional support, contact Samaritans at www.samaritans.org.", same, None),
    (same := "For more help to quit, contact the quitline at www.smokefree.gov.", same, None),
    (
        same := "Please consult a doctor if the fever is above 39; see www.nhs.uk/conditions/fever",
        same,
        None,
    ),
    (
        same
        := "Consult your dentist tomorrow; for more about fluoride see https://www.ada.org/fluoride.",
        same,
        None,
    ),
    (same := "For more information, consult the leaflet at www.medicines.org.uk.", same, None),
    (
        same
        := "For further information about it, please consult the CDC site at https://www.cdc.gov/a.",
        same,
        None,
    ),
    (
        same := "Consult the poison line online at https://www.poison.org or call 1-800-222-1222.",
        same,
        None,
    ),
    (same := "Please consult a dietitian; see www.eatright.org.", same, None),
    (same := "Please consult a psychiatrist online at once.", same, None),
    (same := "Please consult your GP online.", same, None),
    (same := "You can talk to a therapist online.", same, None),
    (same := "Consult a surgeon\nBuy nothing online.", same, None),
    (same := "Contact me tomorrow with the results of the test, or visit our clinic.", same, None),
    ("Get a chest X-ray -->", "Get a chest X-ray", ADVERTISED),
    # Courtesies that say nothing.
    ("Hi. I hope it helps you. If you have any further query, please ask me.", "", COURTESY),
    ("Hello. Hope it helps.", "", COURTESY),
    ("Thank you.", "", COURTESY),
    ("Thanks for your question on Healthcare Magic. Regards.", "", COURTESY),
    ("Hi, welcome to iCliniq.com. I have gone through your query. Take care!", "", COURTESY),
    ("I can understand your concern. Please feel free to ask me again.", "", COURTESY),
    ("Hope I have answered your question. Wish you good health.", "", COURTESY),
    ("Let me know if you have any more questions. I will be happy to help you.", "", COURTESY),
    ("Do not hesitate to contact me. Get well soon.\nBest regards", "", COURTESY),
    (
        "Hi. I have gone through your query with diligence and would like you to know that I "
        "am here to help you. For further information consult a neurologist online -->",
        "",
        COURTESY,
    ),
    ("You're welcome!", "", COURTESY),
    ("My pleasure. Good luck!", "", COURTESY),
    ("Glad I could help. Have a nice day ahead!", "", COURTESY),
    ("Sincerely yours", "", COURTESY),
    ("Thanks & Regards", "", COURTESY),
    ("Hope this clarifies things for you.", "", COURTESY),
    ("Let me know if I can assist you further.", "", COURTESY),
    ("I would be happy to answer any follow up questions you may have.", "", COURTESY),
    ("Best wishes, Dr. Gupta", "", COURTESY),
    ("Hope you will find this answer helpful! Kind regards,\nDr. A. Kumar, MD", "", COURTESY),
    (
        "Hello and thank you for writing to us. I am Dr. Smith and I will try to help you.",
        "",
        COURTESY,
    ),
    ("Hi there! Did my answer help? Please let me know.", "", COURTESY),
    ("Dear user, your query has been received and will be answered soon.", "", COURTESY),
    ("Don\u2019t hesitate to ask if you need any further assistance :)", "", COURTESY),
    ("Should you have any further questions, get in touch.", "", COURTESY),
    ("Brief Answer: You are most welcome! Please close the discussion and rate it.", "", COURTESY),
    ("Hope to hear from you soon. Ok thanks", "", COURTESY),
    ("Gracias por su consulta. Espero haberle ayudado. Un saludo, Dr. Paz", "", COURTESY),
    ("Hola, cu\u00eddese. Quedo a su disposici\u00f3n para cualquier duda.", "", COURTESY),
    # Replies that say something, however little.
    (same := "Ask for help.", same, None),
    (same := "Then ask them to help you.", same, None),
    (same := "Please contact help.", same, None),
    (same := "If you have any problems, contact help.", same, None),
    (same := "Thank you and stop the ibuprofen.", same, None),
    (same := "Regards\nRest the knee.", same, None),
    (same := "Discuss your concerns with your doctor.", same, None),
    (same := "Did the ibuprofen help?", same, None),
    (same := "Your problem is very common.", same, None),
    (same := "Si tiene fiebre, consulte a su m\u00e9dico.", same, None),
    (same := "Dr. Smith is right.", same, None),
    (same := "Hi. Yes.", same, None),
    (same := "Hello, take ibuprofen.", same, None),
    (same := "Take care of your blood pressure.", same, None),
    (same := "Ask me again if the pain is still there on Monday.", same, None),
    (same := "If you have any further bleeding, please go to the hospital.", same, None),
    (same := "Let me know if you have fever.", same, None),
    (same := "I hope it is only a strain. Rest the knee.", same, None),
    (same := "Thanks for your question. It is a wart.", same, None),
    (same := "Please contact your doctor.", same, None),
    (same := "No.", same, None),
    # HTML.
    (
        "<p>Take <b>two</b> tablets.</p><p>Rest &amp; drink.</p>",
        "Take two tablets.\n\nRest & drink.",
        HTML,
    ),
    ("Rest.<br/>Drink.<br>Sleep.", "Rest.\nDrink.\nSleep.", HTML),
    ("<ul><li>Rest</li><li>Drink</li></ul>", "- Rest\n\n- Drink", HTML),
    ("It&#39;s a cold, isn&rsquo;t it?", "It's a cold, isn\u2019t it?", HTML),
    ("Fever &amp;lt; 38 &amp;amp; no cough", "Fever < 38 & no cough", HTML),
    ("Rest.&nbsp;&nbsp;Drink.", "Rest. Drink.", HTML),
    (
        "<div class=\"a\"><span style='b: c'>Rest.</span><script>alert(1)</script></div>",
        "Rest.",
        HTML,
    ),
    ("If BP is <140 <br> go on.", "If BP is <140\ngo on.", HTML),
    ('<a href="https://nhs.uk">Read this</a> first.', "Read this first.", HTML),
    ("&lt;p&gt;Take two.&lt;/p&gt;", "Take two.", HTML),
    ("Rest.&amp;lt;br&amp;gt;Drink.", "Rest.\nDrink.", HTML),
    ("<![CDATA[<p>Take &lt;5 mg.</p>]]>", "Take <5 mg.", HTML),
    ("<?xml version='1.0'?><!DOCTYPE html><html><title>A</title>Rest.</html>", "Rest.", HTML),
    ("<details open><summary>More</summary>Rest.</details>", "More\nRest.", HTML),
    ("<st1:place w:st='on'>Rest</st1:place> <button>now</button><o:p></o:p>", "Rest now", HTML),
    ("<var>x</var><samp>y</samp> <figure><figcaption>z</figcaption></figure>", "xy\n\nz", HTML),
    (
        "<svg><path d='M0'/></svg><iframe src='a'>b</iframe><noscript>c</noscript>"
        "<video controls><source src='d'>e</video>Rest.",
        "Rest.",
        HTML,
    ),
    ("Drink. <iframe src='a'>Rest.", "Drink. Rest.", HTML),
    ("Drink&nbsp&amp rest.", "Drink & rest.", HTML),
    (f"Rest.&#0;&#xD800; Drink.&#{'9' * 5000};", "Rest. Drink.", HTML),
    # What only looks like HTML.
    (same := "If a < b and c > d, give <5 mg; x<y:z>0.", same, None),
    (same := "Keep it <140 and >90, if a<b and c>d.", same, None),
    (same := "Take <dose> as <doctor> says; R&D, AT&T; and 5 < 6.", same, None),
    (same := "A heart <3 for you, and this arrow: a <- b.", same, None),
    # Spaces and unseen characters are no change that anyone need hear of.
    ("  Rest \t and\u00a0drink.\u200b ", "Rest and drink.", None),
    ("Rest.\r\n\r\n\r\n\r\nDrink.", "Rest.\n\nDrink.", None),
]


def test_the_table_is_of_sixty_texts() -> None:
    assert len({text for text, _, _ in TABLE}) == len(TABLE) >= 60


@pytest.mark.parametrize(("text", "left", "why"), TABLE, ids=[text[:40] for text, _, _ in TABLE])
def test_a_reply_is_kept_changed_or_dropped(text: str, left: str, why: str | None) -> None:
    kept, report = clean([Dialogue("Q. Why?", "Why?", text)])
    assert [row.doctor for row in kept] == ([left] if left else [])
    if not left:
        assert report.dropped == {why or "empty or missing reply": 1}
    elif why == ADVERTISED and "<a" in text:
        assert set(report.changed) == {ADVERTISED, HTML}
    else:
        assert report.changed == ({why: 1} if why else {})


@pytest.mark.parametrize("text", [text for text, _, _ in TABLE if normalise(text)])
def test_kept_as_it_is(text: str) -> None:
    cleaner = Cleaner(as_is=True)
    assert [row.doctor for row in cleaner.keep([Dialogue("Q. Why?", "Why?", text)])] == [text]
    assert cleaner.report().changed == {}


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<html></html>", ""),
        ("<html><head><title>x</title></head></html>", ""),
        ("</body><body>", ""),
        ("<html><body>a</body></html>\n<html><body>b</body></html>", "a\nb"),
        ("<p>x</p></body></html> <body>more", "x\n more"),
        ("<span>" * 300 + "important words", "important words"),
    ],
)
def test_pages_in_a_cell_are_their_text(markup: str, text: str) -> None:
    assert text_of(markup).strip() == text


def test_politeness_without_end_is_read_once() -> None:
    for said in ("Ask" + " if it you" * 29, "Ask" + " further questions" * 15, "Hi" * 100):
        assert not is_courtesy(f"{said} zzz.")
    assert not is_courtesy("welcome to a.b " * 18 + "zzz")
    for said in ("\u2014" * 50_000, "and " * 20_000, "a-" * 30_000):
        assert without_advertisements(said + "x") == said + "x"


def test_a_title_is_begun_though_no_word_ends() -> None:
    (row,), _ = clean([Dialogue("", "\u6211" * 200, "Rest.")])
    assert (
        row.title.startswith("\u6211\u6211") and row.title.endswith("...") and len(row.title) < 130
    )


def test_titles_and_questions_are_made_text_too() -> None:
    (row,), report = clean([Dialogue("<b>Why?</b>", "It&#39;s <i>red</i>.", "Rest.")])
    assert (row.title, row.patient) == ("Why?", "It's red.")
    assert report.changed == {HTML: 1}


def test_no_text_takes_for_ever() -> None:
    """Backtracking would: each of these is what one of the rules begins with, again and again."""
    for word in ("hi ", "please ", "if you have any ", "for more ", "-->", "--", "<p ", "&amp;"):
        text = word * 3_000
        assert text_of(text) and without_advertisements(text) is not None
        is_courtesy(text)
        for each in (text.replace(" ", ", "), text.replace(" ", ". ")):
            is_courtesy(each)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b\u00a0c  ", "a b c"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("one\n \n\n\ntwo", "one\n\ntwo"),
        ("nul\x00l, bell\x07, \ufeffmark, \ud800half", "null, bell, mark, half"),
        ("?! -- ...", ""),
        ("é 痛", "é 痛"),
    ],
)
def test_text_is_normalised(text: str, expected: str) -> None:
    assert normalise(text) == expected


def test_rows_are_kept_or_counted_by_reason() -> None:
    rows = [
        Dialogue("Q. Head?", "My head aches.", "Rest."),
        Dialogue("Q. Again?", " my HEAD\n aches.", "rest."),
        Dialogue("Q. Head?", "My head aches.", "Drink."),
        Dialogue("Q. Only a title?", " ", "Yes."),
        Dialogue("", "Word " * 60, "No."),
        Dialogue("", ".", "An answer to nothing."),
        Dialogue("Q. No answer?", "None?", ""),
        Dialogue("Q. An advertisement?", "One?", "For more queries consult a doctor online -->"),
    ]
    faults = Faults()
    faults.skip(Fault("rows.csv, line 3", "not CSV", "is not CSV"), 20)
    kept, report = clean(iter(rows), faults)
    assert [dialogue.doctor for dialogue in kept] == ["Rest.", "Drink.", "Yes.", "No."]
    assert kept[2].patient == "Q. Only a title?"
    assert kept[3].title.startswith("Word Word") and len(kept[3].title) <= 120
    assert (report.read, report.kept) == (9, 4)
    assert report.dropped == {
        "duplicate": 1,
        "empty or missing question": 1,
        "empty or missing reply": 1,
        "boilerplate only": 1,
        "not CSV": 1,
    }
    assert str(report).startswith("9 read, 4 kept, dropped: 1 duplicate, ")
