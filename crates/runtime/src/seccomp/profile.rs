//! A profile as data, and its way to programs for the kernel.
//!
//! One filter knows one action for what it matches, so there is one program for each action. The kernel obeys the
//! strictest answer, and among equally strict ones the program installed last: exceptions come after the rule.

use super::{Programs, number::number};
use crate::{
    capability::Capabilities,
    error::{Error, Result},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::{BTreeMap, btree_map::Entry};

#[derive(Debug)]
pub(super) struct Profile {
    pub(super) default: SeccompAction,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) calls: Vec<String>,
    pub(super) action: SeccompAction,
    /// All must hold for the rule to match.
    pub(super) arguments: Vec<Argument>,
    /// The rule exists only for containers that have all of these...
    pub(super) with: Vec<String>,
    /// ...and none of these.
    pub(super) without: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Argument {
    pub(super) index: u8,
    pub(super) comparison: SeccompCmpOp,
    pub(super) value: u64,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Profile {
    pub(super) fn compile(&self, has: Capabilities) -> Result<Programs> {
        let mut allowed = Rules::new();
        let mut others: BTreeMap<u32, (SeccompAction, Rules)> = BTreeMap::new();
        for rule in
            self.rules.iter().filter(|rule| rule.applies(has) && rule.action != self.default)
        {
            if rule.action == SeccompAction::Allow {
                rule.add_to(&mut allowed)?;
                continue;
            }
            let both_refuse = matches!(
                (&rule.action, &self.default),
                (SeccompAction::Errno(_), SeccompAction::Errno(_))
            );
            if !both_refuse {
                // Has to pass the first program to be judged by its own.
                rule.add_to(&mut allowed)?;
            }
            let key = u32::from(rule.action.clone());
            let (_, rules) =
                others.entry(key).or_insert_with(|| (rule.action.clone(), Rules::new()));
            rule.add_to(rules)?;
        }
        let mut programs = Programs::new();
        if self.default != SeccompAction::Allow {
            programs.push(program(allowed, self.default.clone(), SeccompAction::Allow)?);
        }
        for (action, rules) in others.into_values().filter(|(_, rules)| !rules.is_empty()) {
            programs.push(program(rules, SeccompAction::Allow, action)?);
        }
        Ok(programs)
    }
}

impl Rule {
    fn applies(&self, has: Capabilities) -> bool {
        self.with.iter().all(|name| has.has(name)) && !self.without.iter().any(|name| has.has(name))
    }

    fn add_to(&self, rules: &mut Rules) -> Result<()> {
        let conditions = || -> Result<Vec<SeccompCondition>> {
            let condition = |argument: &Argument| {
                let comparison = argument.comparison.clone();
                SeccompCondition::new(
                    argument.index,
                    SeccompCmpArgLen::Qword,
                    comparison,
                    argument.value,
                )
                .map_err(wrong)
            };
            self.arguments.iter().map(condition).collect()
        };
        // A call that this machine does not have needs no rule.
        for call in self.calls.iter().filter_map(|name| number(name)) {
            if self.arguments.is_empty() {
                // An empty list matches whatever the arguments are.
                rules.insert(call, Vec::new());
                continue;
            }
            let rule = SeccompRule::new(conditions()?).map_err(wrong)?;
            match rules.entry(call) {
                Entry::Vacant(vacant) => drop(vacant.insert(vec![rule])),
                Entry::Occupied(occupied) if occupied.get().is_empty() => {}
                Entry::Occupied(mut occupied) => occupied.get_mut().push(rule),
            }
        }
        Ok(())
    }
}

fn program(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Result<Vec<u8>> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(wrong)?;
    let filter = SeccompFilter::new(rules, otherwise, matched, architecture).map_err(wrong)?;
    let program = BpfProgram::try_from(filter).map_err(wrong)?;
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("compile a seccomp profile: {error}"))
}
