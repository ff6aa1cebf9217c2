//! Who is let in: names and passwords, checked once and remembered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use tokio::sync::Semaphore;

use super::hash::Hash;

/// Credentials remembered. A scraper has one.
const VERIFIED_MAX: usize = 64;
/// Passwords hashed at one time: whoever guesses gets one processor at most, and keeps nobody waiting who is remembered.
const HASHED_AT_ONCE: usize = 1;

/// Checks names and passwords. Those found right are remembered, by a tag that only this process can make: hashing takes
/// longer than a scrape.
#[derive(Debug)]
pub(crate) struct Gate {
    key: hmac::Key,
    verified: Mutex<VecDeque<[u8; 32]>>,
    hashing: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        let mut key = [0; 32];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
            .expect("a kernel that runs programs of the probe's gives 32 bytes at once");
        Gate {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            verified: Mutex::default(),
            hashing: Arc::new(Semaphore::new(HASHED_AT_ONCE)),
        }
    }

    /// Whether an `Authorization` header is that of one of the users. With no users everybody is let in.
    pub(crate) async fn lets_in(
        &self,
        users: &BTreeMap<String, Hash>,
        authorization: Option<&HeaderValue>,
    ) -> bool {
        let Some(any) = users.values().next() else { return true };
        let Some((user, password)) = authorization.and_then(credentials) else { return false };
        // Whoever is not known is told so after the same work.
        let (known, hash) = users.get(&user).map_or((false, any), |hash| (true, hash));
        let tag = self.tag(&user, hash, &password);
        if known && self.verified().contains(&tag) {
            return true;
        }
        let turn = self.hashing.clone().acquire_owned().await.expect("nobody closes it");
        let hash = hash.clone();
        let is_right = tokio::task::spawn_blocking(move || {
            let is_right = hash.is_of(&password);
            drop(turn);
            is_right
        });
        let is_right = is_right.await.unwrap_or(false);
        if known && is_right {
            let mut verified = self.verified();
            verified.truncate(VERIFIED_MAX - 1);
            verified.push_front(tag);
        }
        known && is_right
    }

    /// Another one for each user, stored hash and password.
    fn tag(&self, user: &str, hash: &Hash, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn verified(&self) -> std::sync::MutexGuard<'_, VecDeque<[u8; 32]>> {
        self.verified.lock().expect("nothing panics while it is held")
    }
}

/// User and password of basic authentication (RFC 7617).
fn credentials(authorization: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = authorization.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(user: &str, password: &str) -> HeaderValue {
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        HeaderValue::from_str(&format!("Basic {encoded}")).expect("ASCII")
    }

    fn users(all: &[(&str, &str)]) -> BTreeMap<String, Hash> {
        let hash = |password| Hash::parse(&bcrypt::hash(password, 4).expect("hashed")).expect("a hash");
        all.iter().map(|(user, password)| ((*user).to_owned(), hash(*password))).collect()
    }

    #[tokio::test]
    async fn users_with_their_passwords_are_let_in_and_nobody_else() {
        let (gate, users) = (Gate::new(), users(&[("ann", "secret"), ("bob", "pass:word")]));
        for _ in 0..2 {
            for (user, password, expected) in [
                ("ann", "secret", true),
                ("bob", "pass:word", true),
                ("ann", "pass:word", false),
                ("ann", "", false),
                ("eve", "secret", false),
                ("", "", false),
            ] {
                let header = header(user, password);
                assert_eq!(gate.lets_in(&users, Some(&header)).await, expected, "{user} {password}");
            }
        }
        for other in ["Basic", "Basic !", "Bearer YW5uOnNlY3JldA==", "Basic YW5u", ""] {
            assert!(!gate.lets_in(&users, Some(&HeaderValue::from_static(other))).await, "{other}");
        }
        assert!(!gate.lets_in(&users, None).await);
        assert!(gate.lets_in(&BTreeMap::new(), None).await);
    }

    #[tokio::test]
    async fn what_is_right_is_hashed_once_and_again_when_the_hash_changes() {
        let (gate, before) = (Gate::new(), users(&[("ann", "secret")]));
        let ann = header("ann", "secret");
        assert!(gate.lets_in(&before, Some(&ann)).await);
        // With nobody to hash, only what is remembered is let in.
        let _turn = gate.hashing.clone().acquire_owned().await.expect("open");
        assert!(gate.lets_in(&before, Some(&ann)).await);
        let changed = users(&[("ann", "secret")]);
        let waits = gate.lets_in(&changed, Some(&ann));
        assert!(tokio::time::timeout(std::time::Duration::from_millis(50), waits).await.is_err());
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let (gate, users) = (Gate::new(), users(&[("ann", "secret")]));
        for _ in 0..3 {
            gate.verified().clear();
            gate.verified().extend([[0; 32]; VERIFIED_MAX]);
            assert!(gate.lets_in(&users, Some(&header("ann", "secret"))).await);
            assert_eq!(gate.verified().len(), VERIFIED_MAX);
        }
    }
}
