//! Rules on plain lines: length, module sentence, marks of unfinished work.

use super::Problem;

const LONGEST_LINE: usize = 100;
/// Spelled in two parts so that this file does not break its own rule.
const MARKS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
];

/// Checks the lines of one file.
pub(super) fn check(file: &str, text: &str, problems: &mut Vec<Problem>) {
    let mut complain = |line: usize, message: String| {
        problems.push(Problem {
            file: file.to_owned(),
            line,
            message,
        });
    };
    for (line, number) in text.lines().zip(1..) {
        let length = line.chars().count();
        if length > LONGEST_LINE && !file.ends_with(".toml") {
            complain(
                number,
                format!("{length} characters, at most {LONGEST_LINE}"),
            );
        }
        if line.ends_with([' ', '\t', '\r']) {
            complain(number, "space at the end of the line".to_owned());
        }
        if let Some(mark) = MARKS.iter().find(|mark| line.contains(*mark))
            && !names_issue(line)
        {
            complain(
                number,
                format!("{mark} without the number of an issue, as in {mark}(#12)"),
            );
        }
    }
    // `mod tests` beside the code it tests says by its name what it is.
    if file.ends_with(".rs") && !file.ends_with("/tests.rs") {
        module_sentence(text, &mut complain);
    }
}

fn module_sentence(text: &str, complain: &mut impl FnMut(usize, String)) {
    let sentence = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("//!"));
    match sentence.map(str::trim) {
        None | Some("") => {
            complain(
                1,
                "a module starts with a `//!` sentence that says what it is".to_owned(),
            );
        }
        Some(text) if text.starts_with("Placeholder") => {
            complain(1, "the module's sentence says nothing".to_owned());
        }
        Some(_) => {}
    }
}

/// True for a line that holds `#` and a digit.
fn names_issue(line: &str) -> bool {
    line.split('#')
        .skip(1)
        .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_with_problems(file: &str, text: &str) -> Vec<usize> {
        let mut problems = Vec::new();
        check(file, text, &mut problems);
        problems.into_iter().map(|problem| problem.line).collect()
    }

    #[test]
    fn rules_of_text() {
        let long = "x".repeat(101);
        let mark = MARKS[0];
        let table: &[(&str, String, &[usize])] = &[
            ("a.rs", "//! A module.\nfn f() {}\n".to_owned(), &[]),
            ("a.rs", "fn f() {}\n".to_owned(), &[1]),
            ("a.rs", "//! Placeholder.\n".to_owned(), &[1]),
            ("a.sh", format!("a=1\n{long}\n"), &[2]),
            ("a.toml", "a = 1 \n".to_owned(), &[1]),
            ("a.sh", format!("# {mark} later\n"), &[1]),
            ("a.sh", format!("# {mark}(#12) later\n"), &[]),
        ];
        for (file, text, lines) in table {
            assert_eq!(lines_with_problems(file, text), *lines, "{file}: {text}");
        }
    }
}
