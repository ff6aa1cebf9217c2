//! What a client is called in metrics and logs.

use crate::error::{ClientError, Result};
use streamhouse_core::limits::INSTANCE_ID_BYTES_MAX;

/// The id that was set, or the host's name and the role: the same after every restart, never random.
pub(crate) fn client_id(set: Option<String>, role: &str) -> Result<String> {
    let id = set.unwrap_or_else(|| {
        let host = rustix::system::uname();
        format!("{}-{role}", host.nodename().to_string_lossy())
    });
    if id.is_empty() || id.len() > INSTANCE_ID_BYTES_MAX || id.chars().any(char::is_control) {
        return Err(ClientError::Invalid(format!(
            "client id {:?} is not usable; use 1 to {INSTANCE_ID_BYTES_MAX} bytes without control characters",
            id.chars().take(80).collect::<String>()
        )));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_stable_and_checked() {
        assert_eq!(client_id(None, "producer").unwrap(), client_id(None, "producer").unwrap());
        assert!(client_id(None, "producer").unwrap().ends_with("-producer"));
        assert_eq!(client_id(Some("web-1".into()), "producer").unwrap(), "web-1");
        for bad in ["", "a\nb", &"x".repeat(INSTANCE_ID_BYTES_MAX + 1)] {
            assert!(client_id(Some(bad.into()), "producer").is_err(), "{bad:?}");
        }
    }
}
