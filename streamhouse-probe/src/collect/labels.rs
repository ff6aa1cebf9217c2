//! The bytes that the program copied from a process → labels. The process may have put anything there.

use streamhouse_abi::map::ScopeLabels;
use streamhouse_abi::{Role, Scope};

use super::Labels;

/// The labels, once they are ready.
pub(super) fn decode(labels: &ScopeLabels) -> Option<Labels> {
    if labels.ready != ScopeLabels::READY {
        return None;
    }
    Some(Labels {
        role: Role::from_number(labels.head.role)?,
        instance_id: text(&labels.instance_id),
        group: text(&labels.group),
        topic: text(&labels.topic),
        partition: (labels.head.partition != Scope::NO_PARTITION).then_some(labels.head.partition),
    })
}

/// Up to the NUL, what is not UTF-8 replaced.
fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use streamhouse_abi::ScopeHead;

    fn labels(ready: u64, role: u32, partition: u32) -> ScopeLabels {
        let mut labels = ScopeLabels {
            ready,
            head: ScopeHead { nonce: 1, scope_id: 2, owner: 3, partition, role },
            instance_id: [0; 128],
            group: [b'g'; 256],
            topic: [0; 256],
        };
        labels.instance_id[..5].copy_from_slice(b"id\0xy");
        labels.topic[..3].copy_from_slice(b"t\xff\0");
        labels
    }

    #[test]
    fn strings_end_at_the_nul_or_the_end_and_are_made_valid() {
        let decoded = decode(&labels(ScopeLabels::READY, Role::Consumer as u32, 3)).expect("ready");
        assert_eq!(decoded.instance_id, "id");
        assert_eq!(decoded.group, "g".repeat(256));
        assert_eq!(decoded.topic, "t\u{fffd}");
        assert_eq!((decoded.role, decoded.partition), (Role::Consumer, Some(3)));
        let whole = decode(&labels(ScopeLabels::READY, Role::Agent as u32, Scope::NO_PARTITION));
        assert_eq!(whole.expect("ready").partition, None);
    }

    #[test]
    fn labels_that_are_not_ready_are_no_labels() {
        assert!(decode(&labels(ScopeLabels::EMPTY, Role::Agent as u32, 0)).is_none());
        assert!(decode(&labels(ScopeLabels::COPYING, Role::Agent as u32, 0)).is_none());
        assert!(decode(&labels(ScopeLabels::READY, 99, 0)).is_none());
    }
}
