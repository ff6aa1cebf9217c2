//! `streamhouse-probe list`: the files and processes that a running probe knows, and what became of their sites.

use std::fmt::{self, Write};

use crate::targets::{AttachState, TargetView, TargetsView};

/// The targets, one paragraph each.
#[derive(Debug)]
pub struct List<'a>(pub &'a TargetsView);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.targets.is_empty() {
            return writeln!(f, "no running process carries StreamHouse hooks");
        }
        self.0.targets.iter().try_for_each(|target| paragraph(f, target))
    }
}

fn paragraph(f: &mut fmt::Formatter<'_>, target: &TargetView) -> fmt::Result {
    let refused = target.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let same = target.same_as.map(|kept| format!(", the same file as target {kept}")).unwrap_or_default();
    writeln!(f, "{} {}  {}{same}{refused}", target.id, printable(&target.path), word(target.state))?;
    for site in &target.sites {
        // What the whole file was refused for is not said again.
        let reason = site.reason.as_ref().filter(|_| target.reason.is_none());
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let offset = site.offset.map(|offset| format!(" at {offset:#x}")).unwrap_or_default();
        writeln!(f, "    site {:<8} {}{offset}{reason}", printable(&site.name), word(site.state))?;
    }
    for process in &target.processes {
        let who = match (&process.role, &process.instance_id) {
            (Some(role), Some(id)) => format!("{role} {}", printable(id)),
            _ => "has no state page yet".to_owned(),
        };
        writeln!(f, "    process {:<8} {who}", process.pid)?;
    }
    Ok(())
}

fn word(state: AttachState) -> &'static str {
    match state {
        AttachState::Attached => "attached",
        AttachState::Refused => "refused",
    }
}

/// What others have named must not command a terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            _ if character.is_control() => {
                write!(printable, "{}", character.escape_default()).expect("a string")
            }
            _ => printable.push(character),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::{ProcessView, SiteView};

    #[test]
    fn a_target_is_shown_with_sites_processes_and_reasons() {
        let site = |name: &str, reason: Option<&str>| SiteView {
            name: name.to_owned(),
            offset: reason.is_none().then_some(0x1234),
            semaphore_offset: None,
            state: if reason.is_some() { AttachState::Refused } else { AttachState::Attached },
            reason: reason.map(str::to_owned),
        };
        let target = TargetView {
            id: 3,
            path: "/opt/agent\x1b[2J".to_owned(),
            device: 1,
            inode: 2,
            state: AttachState::Attached,
            reason: None,
            same_as: None,
            sites: vec![site("write", None), site("commit", Some("its byte is not the nop"))],
            processes: vec![
                ProcessView { pid: 7, role: Some("agent".to_owned()), instance_id: Some("a".to_owned()) },
                ProcessView { pid: 8, role: None, instance_id: None },
            ],
        };
        let text = List(&TargetsView { targets: vec![target] }).to_string();
        assert_eq!(
            text,
            "3 /opt/agent\\u{1b}[2J  attached\n    site write    attached at 0x1234\n    site commit   refused: \
             its byte is not the nop\n    process 7        agent a\n    process 8        has no state page yet\n"
        );
        assert!(List(&TargetsView { targets: Vec::new() }).to_string().starts_with("no running process"));
    }
}
