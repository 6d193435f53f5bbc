//! Values written in JSON or as Python literals, which the settings of abcdesktop are made of; the two differ in quotes,
//! in the names of three constants and in what may follow the last item. Dictionaries keep their order, so that a
//! document is handed out as it was written. There are no expressions, tuples or sets.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// A value; it does not print, since some of them are secrets.
#[derive(Clone, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(String),
    List(Vec<Self>),
    Dictionary(Vec<(String, Self)>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct BadLiteral {
    pub line: usize,
    pub message: &'static str,
}

/// Documents of WebRTC settings are three deep.
const DEPTH_MAX: usize = 16;

impl Literal {
    /// The whole text as one value.
    pub fn parse(text: &str) -> Result<Self, BadLiteral> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.blank();
        if parser.at < text.len() { Err(parser.bad("something follows the value")) } else { Ok(value) }
    }

    /// The value of `key` in a file of lines `key: value`, where a value may go on over more lines.
    pub fn of_key(text: &str, key: &str) -> Result<Option<Self>, BadLiteral> {
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            let value = line.strip_prefix(key).map(str::trim_start).and_then(|rest| rest.strip_prefix(':'));
            if let Some(value) = value {
                let mut parser = Parser { text, at: start + (line.len() - value.len()) };
                let value = parser.value(0)?;
                parser.end_of_line()?;
                return Ok(Some(value));
            }
            start += line.len();
        }
        Ok(None)
    }

    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Dictionary(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }

    /// A whole number, also one in quotes.
    #[must_use]
    pub fn as_whole(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            Self::Text(text) => text.parse().ok(),
            Self::Null | Self::Bool(_) | Self::List(_) | Self::Dictionary(_) => None,
        }
    }
}

impl std::fmt::Debug for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Literal(..)")
    }
}

impl Serialize for Literal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Bool(on) => serializer.serialize_bool(*on),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(items) => serializer.collect_seq(items),
            Self::Dictionary(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    /// A character boundary.
    at: usize,
}

impl Parser<'_> {
    fn value(&mut self, depth: usize) -> Result<Literal, BadLiteral> {
        if depth == DEPTH_MAX {
            return Err(self.bad("values are nested too deeply"));
        }
        self.blank();
        match self.peek() {
            Some('{') => self.dictionary(depth),
            Some('[') => self.list(depth),
            Some('\'' | '"') => self.text().map(Literal::Text),
            Some('-' | '0'..='9') => self.number(),
            Some(_) => self.constant(),
            None => Err(self.bad("a value is missing")),
        }
    }

    fn dictionary(&mut self, depth: usize) -> Result<Literal, BadLiteral> {
        let mut entries: Vec<(String, Literal)> = Vec::new();
        self.items('}', |parser| {
            if !matches!(parser.peek(), Some('\'' | '"')) {
                return Err(parser.bad("a key must stand in quotes"));
            }
            let key = parser.text()?;
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(parser.bad("a key stands twice in a dictionary"));
            }
            parser.blank();
            if !parser.eat(':') {
                return Err(parser.bad("a colon must follow a key"));
            }
            entries.push((key, parser.value(depth + 1)?));
            Ok(())
        })?;
        Ok(Literal::Dictionary(entries))
    }

    fn list(&mut self, depth: usize) -> Result<Literal, BadLiteral> {
        let mut values = Vec::new();
        self.items(']', |parser| {
            values.push(parser.value(depth + 1)?);
            Ok(())
        })?;
        Ok(Literal::List(values))
    }

    /// Items between commas, up to the closing bracket; the opening one is the next character.
    fn items(
        &mut self,
        close: char,
        mut item: impl FnMut(&mut Self) -> Result<(), BadLiteral>,
    ) -> Result<(), BadLiteral> {
        self.at += 1;
        loop {
            self.blank();
            if self.eat(close) {
                return Ok(());
            }
            item(self)?;
            self.blank();
            if !self.eat(',') && self.peek() != Some(close) {
                return Err(self.bad("a comma or a closing bracket is missing"));
            }
        }
    }

    fn text(&mut self) -> Result<String, BadLiteral> {
        let quote = self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None | Some('\n') => return Err(self.bad("a text has no closing quote")),
                end if end == quote => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(plain) => text.push(plain),
            }
        }
    }

    fn escape(&mut self) -> Result<char, BadLiteral> {
        match self.next() {
            Some(same @ ('\\' | '\'' | '"' | '/')) => Ok(same),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some('x') => self.code(2).and_then(|code| self.character(code)),
            Some('u') => {
                let code = self.code(4)?;
                // RFC 8259 section 7: beyond the basic plane, two of them.
                let pair = (0xD800..0xDC00).contains(&code) && self.text[self.at..].starts_with("\\u");
                if !pair {
                    return self.character(code);
                }
                self.at += 2;
                let low = self.code(4)?;
                if !(0xDC00..0xE000).contains(&low) {
                    return Err(self.bad("an escape is no character"));
                }
                self.character(0x1_0000 + ((code - 0xD800) << 10) + (low - 0xDC00))
            }
            _ => Err(self.bad("an escape is not known")),
        }
    }

    fn code(&mut self, digits: usize) -> Result<u32, BadLiteral> {
        let mut code = 0;
        for _ in 0..digits {
            let digit = self.next().and_then(|digit| digit.to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.bad("an escape lacks digits"))?;
        }
        Ok(code)
    }

    fn character(&self, code: u32) -> Result<char, BadLiteral> {
        char::from_u32(code).ok_or_else(|| self.bad("an escape is no character"))
    }

    fn number(&mut self) -> Result<Literal, BadLiteral> {
        let word = self.word(|c| matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
        serde_json::from_str(word).map(Literal::Number).map_err(|_| self.bad("a number cannot be read"))
    }

    fn constant(&mut self) -> Result<Literal, BadLiteral> {
        match self.word(char::is_alphanumeric) {
            "True" | "true" => Ok(Literal::Bool(true)),
            "False" | "false" => Ok(Literal::Bool(false)),
            "None" | "null" => Ok(Literal::Null),
            _ => Err(self.bad("a value cannot be read")),
        }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &str {
        let rest = &self.text[self.at..];
        let word = &rest[..rest.find(|c| !belongs(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    /// Passes white space and comments.
    fn blank(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn end_of_line(&self) -> Result<(), BadLiteral> {
        let rest = self.text[self.at..].lines().next().unwrap_or_default().trim_start();
        if rest.is_empty() || rest.starts_with('#') { Ok(()) } else { Err(self.bad("something follows the value")) }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn bad(&self, message: &'static str) -> BadLiteral {
        BadLiteral { line: self.text[..self.at].matches('\n').count() + 1, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        serde_json::to_string(&Literal::parse(text).unwrap()).unwrap()
    }

    #[test]
    fn python_becomes_json_in_the_same_order() {
        let python =
            "{ 'z': [1, -2.5,], # why\n 'a': \"it's\", 'on': True, 'off': False, 'none': None, 'e': '\\u00e9\\'' }";
        assert_eq!(json(python), r#"{"z":[1,-2.5],"a":"it's","on":true,"off":false,"none":null,"e":"é'"}"#);
        assert_eq!(json(r#"{"a":"\ud83d\ude00\/","b":{"c":[]}}"#), r#"{"a":"😀/","b":{"c":[]}}"#);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let cases = [
            ("", 1),
            ("{", 1),
            ("{'a' 1}", 1),
            ("{a: 1}", 1),
            ("{'a': 1\n 'b': 2}", 2),
            ("'abc", 1),
            ("'\\q'", 1),
            ("'\\ud800'", 1),
            ("'\\ud800\\u0041'", 1),
            ("'\\u12'", 1),
            ("1.2.3", 1),
            ("os.system('x')", 1),
            ("[1,,2]", 1),
            ("{'a': 1, 'a': 2}", 1),
            ("[1]\n\n]", 3),
            ("(1, 2)", 1),
        ];
        for (text, line) in cases {
            assert_eq!(Literal::parse(text).unwrap_err().line, line, "{text}");
        }
        assert!(Literal::parse(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn a_key_is_found_at_the_beginning_of_a_line_only() {
        let file = "# a.b: 1\nx: {\n 'a.b': 2 }\na.bc: 3\na.b : { 'k':\n  4 } # four\nrest";
        let value = Literal::of_key(file, "a.b").unwrap().unwrap();
        assert_eq!(value.get("k").and_then(Literal::as_whole), Some(4));
        assert!(Literal::of_key(file, "a").unwrap().is_none());
        assert_eq!(Literal::of_key("x: 1\na: [1] 2", "a").unwrap_err().line, 2);
    }

    proptest::proptest! {
        #[test]
        fn any_json_survives(text in "\\PC{0,20}", number in proptest::prelude::any::<i64>()) {
            let value = serde_json::json!({"t": text, "n": [number, null, true], "d": {"x": {}}});
            let read = Literal::parse(&value.to_string()).unwrap();
            proptest::prop_assert_eq!(serde_json::to_value(read).unwrap(), value);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}:,'\"\\\\a-z0-9 \n#é-]{0,60}") {
            let _ = Literal::parse(&text);
            let _ = Literal::of_key(&text, "a");
        }
    }
}
