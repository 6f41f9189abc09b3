//! Splits a line into words; knows quotes, backslashes, comments and `$?`, and does no I/O.

/// How the next character is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// The words of `line`, with `$?` replaced by `status` outside single quotes.
///
/// # Errors
/// A quote that is not closed.
pub(super) fn split(line: &str, status: u8) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = Quote::None;
    let mut rest = line.trim_end_matches(['\n', '\r']).chars().peekable();
    while let Some(character) = rest.next() {
        match (quote, character) {
            (Quote::None, ' ' | '\t') => words.extend(word.take()),
            (Quote::None, '#') if word.is_none() => break,
            (Quote::None, '\'') => (quote, word) = (Quote::Single, Some(word.unwrap_or_default())),
            (Quote::None, '"') => (quote, word) = (Quote::Double, Some(word.unwrap_or_default())),
            (Quote::Single, '\'') | (Quote::Double, '"') => quote = Quote::None,
            (Quote::None | Quote::Double, '\\') => {
                word.get_or_insert_default().extend(rest.next());
            }
            (Quote::None | Quote::Double, '$') if rest.peek() == Some(&'?') => {
                rest.next();
                word.get_or_insert_default().push_str(&status.to_string());
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote != Quote::None {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn lines_become_words() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            ("  \t\r\n", &[]),
            ("ls -l /\n", &["ls", "-l", "/"]),
            ("echo 'a b' \"c d\"e", &["echo", "a b", "c de"]),
            ("echo \"\" ''", &["echo", "", ""]),
            ("echo a\\ b # no", &["echo", "a b"]),
            ("echo a#b", &["echo", "a#b"]),
            ("echo $? '$?' \"$?\"", &["echo", "7", "$?", "7"]),
            ("echo end\\", &["echo", "end"]),
        ];
        for (line, words) in table {
            assert_eq!(split(line, 7).expect(line), *words, "{line:?}");
        }
    }

    #[test]
    fn open_quotes_are_refused() {
        for line in ["echo 'a", "echo \"a", "'"] {
            assert!(split(line, 0).is_err(), "{line:?}");
        }
    }
}
