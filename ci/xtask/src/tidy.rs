//! `cargo xtask tidy`: the rules of docs and style that no compiler checks, as data and small
//! functions over the text and the tokens of every source file.

mod budget;
mod pages;
mod source;
mod text;

use crate::repo;
use anyhow::{Context, Result};
use source::Source;
use std::path::Path;

/// One broken rule: where and what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    file: String,
    line: usize,
    message: String,
}

/// Prints every broken rule; true when there is none.
pub(crate) fn run() -> Result<bool> {
    let problems = problems(&repo::root())?;
    for Problem {
        file,
        line,
        message,
    } in &problems
    {
        println!("tidy: {file}:{line}: {message}");
    }
    println!("tidy: {} problems", problems.len());
    Ok(problems.is_empty())
}

fn problems(root: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut sources = Vec::new();
    for path in repo::files(root, &[".rs", ".sh", ".toml"])? {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let name = path
            .strip_prefix(root)
            .unwrap_or(&path)
            .to_string_lossy()
            .into_owned();
        text::check(&name, &text, &mut problems);
        if name.ends_with(".rs") {
            match Source::parse(name.clone(), &text) {
                Ok(source) => sources.push(source),
                Err(why) => problems.push(Problem {
                    file: name,
                    line: 1,
                    message: why,
                }),
            }
        }
    }
    for source in &sources {
        source.check(&mut problems);
    }
    pages::check(root, &mut problems)?;
    budget::check(root, &sources, &mut problems)?;
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        assert!(run().unwrap(), "see the problems above");
    }
}
