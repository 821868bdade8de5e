//! Reads a profile in the JSON form that container runtimes share.

use super::profile::{Argument, Profile, Rule};
use seccompiler::{SeccompAction, SeccompCmpOp};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Comparison>>,
    includes: Option<Only>,
    excludes: Option<Only>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Comparison {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Only {
    caps: Vec<String>,
    arches: Vec<String>,
}

pub(super) fn parse(text: &str) -> Result<Profile, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let default = action(&file.default_action, file.default_errno_ret)?;
    let rules = file
        .syscalls
        .into_iter()
        .filter(is_for_this_machine)
        .map(rule)
        .collect::<Result<_, _>>()?;
    Ok(Profile { default, rules })
}

fn is_for_this_machine(calls: &Calls) -> bool {
    const NAMES: &[&str] =
        if cfg!(target_arch = "x86_64") { &["amd64", "x32", "x86"] } else { &["arm64", "arm"] };
    let names_us =
        |only: &Only| only.arches.iter().any(|name| NAMES.first() == Some(&name.as_str()));
    let included =
        calls.includes.as_ref().is_none_or(|only| only.arches.is_empty() || names_us(only));
    included && !calls.excludes.as_ref().is_some_and(names_us)
}

fn rule(calls: Calls) -> Result<Rule, String> {
    Ok(Rule {
        calls: calls.names,
        action: action(&calls.action, calls.errno_ret)?,
        arguments: calls
            .args
            .unwrap_or_default()
            .into_iter()
            .map(argument)
            .collect::<Result<_, _>>()?,
        with: calls.includes.unwrap_or_default().caps,
        without: calls.excludes.unwrap_or_default().caps,
    })
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, String> {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_TRACE" => SeccompAction::Trace(errno),
        other => return Err(format!("unknown action {other:?}")),
    })
}

fn argument(comparison: Comparison) -> Result<Argument, String> {
    let Comparison { index, value, value_two, op } = comparison;
    let (comparison, value) = match op.as_str() {
        "SCMP_CMP_NE" => (SeccompCmpOp::Ne, value),
        "SCMP_CMP_LT" => (SeccompCmpOp::Lt, value),
        "SCMP_CMP_LE" => (SeccompCmpOp::Le, value),
        "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, value),
        "SCMP_CMP_GE" => (SeccompCmpOp::Ge, value),
        "SCMP_CMP_GT" => (SeccompCmpOp::Gt, value),
        "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(value), value_two),
        other => return Err(format!("unknown comparison {other:?}")),
    };
    Ok(Argument { index, comparison, value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Capabilities;

    #[test]
    fn a_profile_becomes_one_program_for_each_action() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
            {"names":["ptrace"],"action":"SCMP_ACT_KILL_PROCESS","excludes":{"caps":["CAP_SYS_PTRACE"]}}]}"#;
        let profile = parse(text).unwrap();
        assert_eq!(profile.compile(Capabilities::default()).unwrap().len(), 2);
        assert_eq!(profile.compile(Capabilities::ALL).unwrap().len(), 1);
    }

    #[test]
    fn what_is_unknown_is_refused_by_name() {
        let error = parse(r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#).unwrap_err();
        assert_eq!(error, "unknown action \"SCMP_ACT_MAYBE\"");
    }
}
