//! The message and the fields of a line without colors.
//!
//! The format is that of the subscriber's own formatter, which checks each character for control characters. Here a text
//! without control characters is written as a whole.

use std::fmt::{self, Write};

use tracing_subscriber::{
    field::MakeExt as _,
    fmt::{FormatFields, format},
};

/// `message name=value name=value`
pub(super) fn plain() -> impl for<'a> FormatFields<'a> {
    format::debug_fn(|out, field, value| match field.name() {
        "message" => write!(EscapeControls(out), "{value:?}"),
        name => write!(EscapeControls(out), "{name}={value:?}"),
    })
    .delimited(" ")
}

/// Replaces control characters with escape sequences, except line breaks and tabs.
struct EscapeControls<'a, W>(&'a mut W);

impl<W: Write> Write for EscapeControls<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // The first byte of all control characters outside of ASCII, in UTF-8.
        const NON_ASCII: u8 = 0xc2;
        let may_be_control = |byte: u8| byte < b' ' || byte == 0x7f || byte == NON_ASCII;
        if !text.bytes().any(may_be_control) {
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
    fn control_characters_are_escaped() {
        for (text, written) in [
            ("GET /v2/ 200", "GET /v2/ 200"),
            ("größer ¿", "größer ¿"),
            ("one\ttwo\n", "one\ttwo\n"),
            ("\x1b[31mred\x07\x7f", "\\u{1b}[31mred\\u{7}\\u{7f}"),
            ("\u{9b}2J", "\\u{9b}2J"),
        ] {
            let mut out = String::new();
            EscapeControls(&mut out).write_str(text).unwrap();
            assert_eq!(out, written);
        }
    }
}
