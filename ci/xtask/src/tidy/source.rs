//! Rules on the tokens of a Rust file: length of functions and files, and who may name KVM.

use super::Problem;
use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use std::str::FromStr;

const LONGEST_FUNCTION: usize = 70;
const LONGEST_FILE: usize = 600;

/// The only places that may name KVM's structures and calls.
const HOMES_OF_KVM: [&str; 2] = ["vmm/src/kvm/", "vmm/src/kvm.rs"];

/// One Rust file, as far as the rules need it.
#[derive(Debug)]
pub(super) struct Source {
    /// Path below the repository's root.
    pub(super) name: String,
    /// How often the keyword `unsafe` stands outside tests.
    pub(super) unsafe_count: usize,
    lines: usize,
    functions: Vec<Function>,
    names_of_kvm: Vec<(usize, String)>,
    test_lines: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

impl Source {
    /// Reads the tokens of a file.
    pub(super) fn parse(name: String, text: &str) -> Result<Source, String> {
        let tokens = TokenStream::from_str(text).map_err(|error| error.to_string())?;
        let mut source = Source {
            name,
            unsafe_count: 0,
            lines: text.lines().count(),
            functions: Vec::new(),
            names_of_kvm: Vec::new(),
            test_lines: 0,
        };
        source.walk(tokens);
        Ok(source)
    }

    /// True for a file that holds nothing but tests.
    fn is_test(&self) -> bool {
        let is_table = self.name.starts_with("tests/hostile/src/rows/");
        is_table || self.name.ends_with("/tests.rs") || self.name.contains("/tests/")
    }

    fn walk(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(rest) = tokens.get(at..).filter(|rest| !rest.is_empty()) {
            if starts_test(rest) {
                let item = item_length(rest);
                self.test_lines += lines_of(rest.get(..item).unwrap_or(rest));
                at += item;
                continue;
            }
            self.function(rest);
            match rest.first() {
                Some(TokenTree::Ident(ident)) => self.name_used(ident),
                Some(TokenTree::Group(group)) => self.walk(group.stream()),
                _ => {}
            }
            at += 1;
        }
    }

    fn name_used(&mut self, ident: &proc_macro2::Ident) {
        let text = ident.to_string();
        if text == "unsafe" {
            self.unsafe_count += 1;
        }
        if text.starts_with("kvm_") {
            self.names_of_kvm.push((ident.span().start().line, text));
        }
    }

    fn function(&mut self, tokens: &[TokenTree]) {
        let [TokenTree::Ident(keyword), TokenTree::Ident(name), rest @ ..] = tokens else {
            return;
        };
        if keyword != "fn" {
            return;
        }
        let Some(body) = body(rest) else { return };
        let first = keyword.span().start().line;
        let last = body.span_close().end().line;
        self.functions.push(Function {
            name: name.to_string(),
            line: first,
            lines: last + 1 - first,
        });
    }

    /// Adds what is wrong with this file.
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        let mut complain = |line: usize, message: String| {
            problems.push(Problem {
                file: self.name.clone(),
                line,
                message,
            });
        };
        for Function { name, line, lines } in &self.functions {
            if *lines > LONGEST_FUNCTION && !self.is_test() {
                complain(
                    *line,
                    format!("{name} has {lines} lines, at most {LONGEST_FUNCTION}"),
                );
            }
        }
        let lines = self.lines - self.test_lines.min(self.lines);
        if lines > LONGEST_FILE && !self.is_test() {
            complain(
                1,
                format!("{lines} lines without tests, at most {LONGEST_FILE}"),
            );
        }
        if !HOMES_OF_KVM.iter().any(|home| self.name.starts_with(home)) {
            for (line, name) in &self.names_of_kvm {
                complain(*line, format!("{name}: only vmm/src/kvm may name KVM"));
            }
        }
    }
}

/// True where `#[cfg(test)]` or `#[test]` begins.
fn starts_test(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(hash), TokenTree::Group(attribute), ..] = tokens else {
        return false;
    };
    let text = attribute.stream().to_string().replace(' ', "");
    hash.as_char() == '#' && matches!(text.as_str(), "cfg(test)" | "test")
}

/// How many tokens the item that begins here has: to its body or its semicolon.
fn item_length(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        _ => false,
    };
    tokens
        .iter()
        .position(ends)
        .map_or(tokens.len(), |at| at + 1)
}

/// A function's body: the next braces before a semicolon.
fn body(tokens: &[TokenTree]) -> Option<&Group> {
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return Some(group),
            TokenTree::Punct(punct) if punct.as_char() == ';' => return None,
            _ => {}
        }
    }
    None
}

fn lines_of(tokens: &[TokenTree]) -> usize {
    let first = tokens
        .first()
        .map(TokenTree::span)
        .map(|span: Span| span.start().line);
    let last = tokens.last().map(|token| match token {
        TokenTree::Group(group) => group.span_close().end().line,
        other => other.span().end().line,
    });
    first.zip(last).map_or(0, |(first, last)| last + 1 - first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Source {
        Source::parse(name.to_owned(), text).unwrap()
    }

    fn messages(source: &Source) -> Vec<String> {
        let mut problems = Vec::new();
        source.check(&mut problems);
        problems
            .into_iter()
            .map(|problem| problem.message)
            .collect()
    }

    #[test]
    fn functions_are_measured_from_keyword_to_brace() {
        let source = parse(
            "a/src/lib.rs",
            "trait T { fn g(&self); }\nfn f<T>() -> [u8; 2] {\n}\n",
        );
        let function = Function {
            name: "f".to_owned(),
            line: 2,
            lines: 2,
        };
        assert_eq!(source.functions, [function]);
    }

    #[test]
    fn long_functions_and_files_are_found_outside_tests() {
        let body = "    g();\n".repeat(70);
        let long = format!("fn f() {{\n{body}}}\n");
        assert_eq!(
            messages(&parse("a.rs", &long)),
            ["f has 72 lines, at most 70"]
        );
        assert!(messages(&parse("a/tests.rs", &long)).is_empty());
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n{}\n}}\n", long.repeat(9));
        assert!(messages(&parse("a.rs", &in_tests)).is_empty());
        let many = "fn g() {}\n".repeat(601);
        assert_eq!(
            messages(&parse("a.rs", &many)),
            ["601 lines without tests, at most 600"]
        );
    }

    #[test]
    fn unsafe_is_counted_and_kvm_has_one_home() {
        let text = "unsafe impl S for T {}\nfn f() { unsafe { g() } } // unsafe kvm_run\n\
                    use kvm_bindings::kvm_run;\n#[cfg(test)] mod t { fn h() { unsafe {} } }\n";
        assert_eq!(parse("vmm/src/kvm/vm.rs", text).unsafe_count, 2);
        assert!(messages(&parse("vmm/src/kvm/vm.rs", text)).is_empty());
        assert_eq!(messages(&parse("devices/src/bus.rs", text)).len(), 2);
    }
}
