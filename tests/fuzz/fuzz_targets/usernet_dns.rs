//! Any bytes as a DNS message: no panic, no name longer than there are, bounded answers that ask
//! the same and are read as answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usernet::{Addresses, Failure, Question};

fuzz_target!(|data: &[u8]| {
    if let Some(question) = Question::of_query(data) {
        assert!(question.name.len() <= 255);
        for answer in [
            question.failure(data, Failure::Server),
            question.failure(data, Failure::Refused),
            question.truncated(data),
        ] {
            assert!(answer.len() <= data.len());
            assert_eq!(Question::of_query(&answer), None, "an answer is no query");
            let again = Question::of_answer(&answer).expect("an answer to the question");
            assert!(again.is_same(&question) && again.id == question.id);
            assert_eq!(Addresses::of(&answer, &again), Addresses::default());
        }
    }
    if let Some(question) = Question::of_answer(data) {
        let found = Addresses::of(data, &question);
        assert!(found.addresses.len() <= 64 && found.aliases.len() <= 128);
        assert!(found.aliases.iter().all(|name| name.len() <= 255));
    }
});
