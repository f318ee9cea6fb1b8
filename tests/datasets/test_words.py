import unicodedata

import pytest

from activity.datasets.words import tokens_of


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man is RUNNING.", "a man is running"),
        ("wait... what?! -- no; (a {red} [dog]): `quoted` ''it'' \"is\"", "wait what no a red dog quoted it is"),
        ("a man's T-shirt, semi- and -dry, dogs' tails", "a man's t-shirt semi and dry dogs tails"),
        ("3.5 metres, 1,000 at 3:20. 7, 8", "3.5 metres 1,000 at 3:20 7 8"),
        ("man,woman.then:red", "man woman then red"),
        ("50% of r&b and/or #1 a_b $5 a+b <unk>", "50% of r&b and/or #1 a_b $5 a+b <unk>"),
        ("“quotes” and ‘these’ – man’s — x‑ray…", "quotes and these man's x-ray"),
        ("¿Qué pasa? ¡Hola!", "qué pasa hola"),
        ("ÉTÉ Ça ΣΑΣ ДОМ", "été ça σας дом"),
        ("धीरे-धीरे चलता है।", "धीरे-धीरे चलता है"),
        ("يُركّض الرجل، أليس كذلك؟", "يُركّض الرجل أليس كذلك"),
        ("צה״ל ג׳ירפה", "צה״ל ג׳ירפה"),
        ("一个人，在跑。", "一个人 在跑"),
        ("one\ntwo\tthree\u00a0four\u3000five", "one two three four five"),
        ("🏃 runs", "🏃 runs"),
        ("' . ! …", ""),
        ("", ""),
    ],
)
def test_tokens(caption, tokens):
    assert tokens_of(caption) == tokens.split()


def test_tokens_of_equivalent_unicode_are_equal():
    text = "Ein Café für Ñandús, हिन्दी क़"
    forms = [tokens_of(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")]
    assert forms[0] == forms[1] and len(forms[0]) == 6


def test_tokens_stay_what_they_are():
    texts = ["a man's T-shirt, 3.5 m", "“rock ’n’ roll”", "İstanbul'da"]
    assert all(tokens_of(" ".join(tokens_of(text))) == tokens_of(text) for text in texts)
