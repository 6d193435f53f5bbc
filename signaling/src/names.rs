//! What others see of a person's name. A name is shown beside other people's, so what cannot be seen is taken out of it:
//! with it, two people could look the same more easily than by letters that are alike, one could have no name, or turn the text around it about (RFC 8264 section 9.10
//! and Unicode's UTR 36 tell more).
//!
//! Taken out are control characters and what Unicode calls default-ignorable: zero-width spaces, joiners of words, marks
//! and brackets of direction, fillers, soft hyphens, tags. Kept are the few of them that change how the character before
//! them looks (joiners of Arabic, Indic scripts and emoji, variation selectors, the letters of a flag's tag), but only after
//! a character that is seen. What is left must have one that is.

/// A pattern of Braille without a dot: a sign by its category, nothing to the eye.
const BRAILLE_BLANK: char = '\u{2800}';
/// What tags stand behind: with them it is the flag of a region.
const BLACK_FLAG: char = '\u{1F3F4}';

/// What others can see of a name; `None` when that is nothing.
#[must_use]
pub fn shown(name: &str) -> Option<String> {
    let mut kept = String::with_capacity(name.len());
    let (mut after_seen, mut in_flag) = (false, false);
    for c in name.chars() {
        in_flag = c == BLACK_FLAG || in_flag && is_tag(c);
        if is_shaping(c) {
            if after_seen && (in_flag || !is_tag(c)) {
                kept.push(c);
            }
        } else if !c.is_control() && !is_ignorable(c) {
            kept.push(c);
            after_seen = is_seen(c);
        }
    }
    // A joiner at the end joins nothing.
    let trimmed = kept
        .trim_start_matches(|c: char| c.is_whitespace() || c == BRAILLE_BLANK)
        .trim_end_matches(|c: char| c.is_whitespace() || matches!(c, BRAILLE_BLANK | '\u{200C}' | '\u{200D}'));
    is_visible(trimmed).then(|| trimmed.to_owned())
}

/// Whether somebody who looks at the text sees anything.
#[must_use]
pub fn is_visible(text: &str) -> bool {
    text.chars().any(is_seen)
}

fn is_seen(c: char) -> bool {
    !c.is_control() && !c.is_whitespace() && !is_shaping(c) && !is_ignorable(c) && c != BRAILLE_BLANK
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{E0020}'..='\u{E007F}')
}

/// Default-ignorable, and part of how the character before it is drawn.
fn is_shaping(c: char) -> bool {
    matches!(c,
        '\u{200C}' | '\u{200D}'                 // joiners
        | '\u{180B}'..='\u{180D}' | '\u{180F}'  // variations of Mongolian letters
        | '\u{FE00}'..='\u{FE0F}'               // variation selectors: text or emoji
        | '\u{E0020}'..='\u{E007F}'             // tags: flags of regions
        | '\u{E0100}'..='\u{E01EF}') // variations of Han characters
}

/// `Default_Ignorable_Code_Point` of Unicode 16, the annotation marks U+FFF9 to U+FFFB, and the ends of lines and paragraphs.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{00AD}' | '\u{034F}' | '\u{061C}'
        | '\u{115F}'..='\u{1160}'
        | '\u{17B4}'..='\u{17B5}'
        | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}'
        | '\u{2028}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}'
        | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}' | '\u{FFA0}'
        | '\u{FFF0}'..='\u{FFFB}'
        | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}'
        | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_seen_is_taken_out() {
        for (name, seen) in [
            ("Ada", "Ada"),
            ("  Ada  Lovelace\u{A0}", "Ada  Lovelace"),
            ("A\u{200B}da\u{FEFF}", "Ada"),
            ("\u{2060}Ada\u{AD}", "Ada"),
            ("A\u{0}d\na", "Ada"),
            // Text that turns what stands after it about, and a mark of direction.
            ("Ada\u{202E}", "Ada"),
            ("\u{2066}Ada\u{2069}\u{200F}", "Ada"),
            ("\u{3164}Ada\u{115F}", "Ada"),
            ("Ada\u{E0041}\u{E0042}", "Ada"),
            ("A\u{2028}da \u{2800}", "Ada"),
        ] {
            assert_eq!(shown(name).as_deref(), Some(seen), "{name:?}");
        }
    }

    #[test]
    fn what_shapes_the_character_before_it_stays() {
        for name in [
            "می\u{200C}خواهم",
            "क्\u{200D}ष",
            "👩\u{200D}💻",
            "❤\u{FE0F}",
            "葛\u{E0100}",
            "🏴\u{E0067}\u{E0062}\u{E007F}",
        ] {
            assert_eq!(shown(name).as_deref(), Some(name), "{name:?}");
        }
        assert_eq!(shown("\u{200D}\u{FE0F}Ada").as_deref(), Some("Ada"), "there is nothing before it to shape");
        assert_eq!(shown("Ada\u{200D} \u{200C}").as_deref(), Some("Ada"), "there is nothing after it to join");
    }

    #[test]
    fn a_name_that_nobody_can_see_is_none() {
        for name in [
            "",
            " \t\u{3000}",
            "\u{200B}",
            "\u{200D}\u{200C}",
            "\u{FE0F}",
            "\u{2800}\u{2800}",
            "\u{3164}",
            "\u{E0041}",
            "\u{202E}",
        ] {
            assert_eq!(shown(name), None, "{name:?}");
            assert!(!is_visible(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_seen_and_stays_as_it_is(name in any::<String>()) {
            if let Some(seen) = shown(&name) {
                prop_assert!(is_visible(&seen));
                prop_assert!(!seen.chars().any(char::is_control));
                prop_assert_eq!(shown(&seen), Some(seen));
            }
            prop_assert_eq!(shown(&name).is_some(), is_visible(&name));
        }
    }
}
