//! The message and the fields of a line without colours.
//!
//! As the formatter that comes with the subscriber writes them, which looks at each character by itself to find those that
//! would do something to a terminal. Here a text without such characters is written as a whole.

use std::fmt::{self, Write};

use tracing_subscriber::{
    field::MakeExt as _,
    fmt::{FormatFields, format},
};

/// `message name=value name=value`
pub(super) fn plain() -> impl for<'a> FormatFields<'a> {
    format::debug_fn(|out, field, value| match field.name() {
        "message" => write!(Harmless(out), "{value:?}"),
        name => write!(Harmless(out), "{name}={value:?}"),
    })
    .delimited(" ")
}

/// Writes control characters as their escape sequence. Line breaks and tabs stay as they are.
struct Harmless<'a, W>(&'a mut W);

impl<W: Write> Write for Harmless<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // In UTF-8 the control characters beyond ASCII all begin with this byte.
        const BEYOND_ASCII: u8 = 0xc2;
        let suspicious = |byte: u8| byte < b' ' || byte == 0x7f || byte == BEYOND_ASCII;
        if !text.bytes().any(suspicious) {
            return self.0.write_str(text);
        }
        for character in text.chars() {
            if character.is_control() && !matches!(character, '\n' | '\t') {
                write!(self.0, "{}", character.escape_default())?;
            } else {
                self.0.write_char(character)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_command_a_terminal() {
        for (text, written) in [
            ("GET /v2/ 200", "GET /v2/ 200"),
            ("größer ¿", "größer ¿"),
            ("one\ttwo\n", "one\ttwo\n"),
            ("\x1b[31mred\x07\x7f", "\\u{1b}[31mred\\u{7}\\u{7f}"),
            ("\u{9b}2J", "\\u{9b}2J"),
        ] {
            let mut out = String::new();
            Harmless(&mut out).write_str(text).unwrap();
            assert_eq!(out, written);
        }
    }
}
