//! The addresses of the names that rules speak of, as the name server last told them.

use crate::config::{Action, Policy, Target};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Addresses that are kept; more push out those that end first.
const MOST: usize = 4096;
/// Programs use an address for a while after its time.
const LEAST_TIME: Duration = Duration::from_secs(60);
const MOST_TIME: Duration = Duration::from_secs(86_400);

/// True when a rule's name means `name`.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => name
            .strip_suffix(parent)
            .is_some_and(|rest| rest.ends_with('.')),
        None => pattern == name,
    }
}

/// Which addresses belong to the names of which rules, and until when.
#[derive(Debug)]
pub(crate) struct Names {
    /// Place in the policy, action and name of each rule that has one.
    rules: Vec<(usize, Action, String)>,
    known: HashMap<(usize, IpAddr), Instant>,
}

impl Names {
    pub(super) fn new(policy: &Policy) -> Self {
        let rules = policy.rules.iter().enumerate();
        let named = rules.filter_map(|(index, rule)| match &rule.target {
            Target::Name(name) => Some((index, rule.action, name.clone())),
            _ => None,
        });
        Self {
            rules: named.collect(),
            known: HashMap::new(),
        }
    }

    /// Remembers the addresses of an answer to the question for `name`, in which `aliases` stand
    /// too. An alias only ever closes: whoever answers for one name could claim any other as its
    /// alias.
    pub(crate) fn learn(
        &mut self,
        name: &str,
        aliases: &[String],
        addresses: &[(IpAddr, u32)],
        now: Instant,
    ) {
        for (index, action, pattern) in &self.rules {
            let is_alias = || aliases.iter().any(|alias| fits(pattern, alias));
            let is_meant = fits(pattern, name) || (*action == Action::Deny && is_alias());
            if !is_meant {
                continue;
            }
            for (address, seconds) in addresses {
                let time = Duration::from_secs((*seconds).into());
                let until = now + time.clamp(LEAST_TIME, MOST_TIME);
                let place = self.known.entry((*index, *address)).or_insert(until);
                *place = (*place).max(until);
            }
        }
        while self.known.len() > MOST {
            let first = self.known.iter().min_by_key(|(_, until)| **until);
            let Some(first) = first.map(|(key, _)| *key) else {
                return;
            };
            self.known.remove(&first);
        }
    }

    /// True when the address belongs to the name of the rule at `index`.
    pub(super) fn has(&self, index: usize, address: IpAddr, now: Instant) -> bool {
        let until = self.known.get(&(index, address));
        until.is_some_and(|until| now < *until)
    }
}
