//! id: who the process is, with names from /etc/passwd and /etc/group.

use crate::{Attempt, Outcome};
use std::fs;

pub(crate) fn id(_words: &[String]) -> Outcome {
    let status =
        fs::read_to_string("/proc/self/status").attempt(|| "read /proc/self/status".to_owned())?;
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    println!("{}", describe(&status, &passwd, &group));
    Ok(())
}

fn describe(status: &str, passwd: &str, group: &str) -> String {
    let ids = |key: &str| -> Vec<String> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    };
    // Real, effective, saved, filesystem: what counts is the second.
    let effective = |key: &str| ids(key).into_iter().nth(1).unwrap_or_default();
    let (user, main_group) = (effective("Uid:"), effective("Gid:"));
    let mut groups = ids("Groups:");
    if !groups.contains(&main_group) {
        groups.insert(0, main_group.clone());
    }
    let groups: Vec<String> = groups.iter().map(|id| with_name(id, group)).collect();
    let (user, main_group) = (with_name(&user, passwd), with_name(&main_group, group));
    format!("uid={user} gid={main_group} groups={}", groups.join(","))
}

/// Both files have the name first and the id third.
fn with_name(id: &str, file: &str) -> String {
    let named = file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then_some(name)
    });
    named.map_or_else(|| id.to_owned(), |name| format!("{id}({name})"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_what_has_a_name() {
        let status = "Name:\tid\nUid:\t0\t1000\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t5 2000 \n";
        let described = super::describe(status, "a:x:1000:0\n", "root:x:0:\ntty:x:5:\n");
        assert_eq!(described, "uid=1000(a) gid=0(root) groups=0(root),5(tty),2000");
    }
}
