//! The value of `--balloon`: options, separated by commas.

use api::spec::{BalloonSpec, SizeSpec};

use crate::failure::Failure;

/// Reads one `--balloon`; without a value it is an empty balloon.
///
/// # Errors
/// When an option is unknown, or its value no number.
pub(crate) fn parse(value: &str) -> Result<BalloonSpec, Failure> {
    let mut balloon = BalloonSpec::default();
    for option in value.split(',').filter(|_| !value.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => balloon.size = Some(SizeSpec::Text(size.to_owned())),
            Some(("stats", seconds)) => {
                let hint = "give whole seconds, such as stats=5";
                balloon.stats_seconds = super::number("balloon stats", seconds, hint)?;
            }
            None if option == "deflate-on-oom" => balloon.deflate_on_oom = true,
            None if option == "reporting" => balloon.reporting = true,
            None if option == "hinting" => balloon.hinting = true,
            _ => {
                return Err(Failure::input(
                    format!("balloon {value}: has the unknown option {option:?}"),
                    "the options are size=SIZE, deflate-on-oom, stats=SECONDS, reporting, hinting",
                ));
            }
        }
    }
    Ok(balloon)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        let all = BalloonSpec {
            size: Some(SizeSpec::Text("64M".into())),
            deflate_on_oom: true,
            stats_seconds: 5,
            reporting: true,
            hinting: true,
        };
        let text = "size=64M,deflate-on-oom,stats=5,reporting,hinting";
        assert_eq!(parse(text).unwrap(), all);
        assert_eq!(parse("").unwrap(), BalloonSpec::default());
        assert_eq!(parse("size=1,size=64M,hinting").unwrap().size, all.size);
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("64M", "balloon 64M: has the unknown option \"64M\""),
            ("size", "balloon size: has the unknown option \"size\""),
            ("reporting=1", "balloon reporting=1: has the unknown option"),
            (",", "balloon ,: has the unknown option \"\""),
            ("stats=x", "balloon stats \"x\" is not a whole number"),
            ("stats=-1", "balloon stats \"-1\" is not a whole number"),
        ] {
            let failure = parse(text).unwrap_err();
            assert!(failure.message.starts_with(message), "{}", failure.message);
        }
    }
}
