//! The file of bearer tokens: who may do what, until when.
//!
//! A line is `TOKEN SCOPES [EXPIRES]`; `#` begins a comment line. Of a token only its digest is kept, and no message has
//! anything of a line in it: fields that are mixed up would put a token there.

use super::expiry;
use crate::watched::{FileError, read};
use ring::digest::{SHA256, digest};
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Shortest token: 16 random characters out of 64 are 96 bits.
const TOKEN_BYTES_MIN: usize = 16;
/// Longest token: it comes with every request.
pub(super) const TOKEN_BYTES_MAX: usize = 512;
/// Most tokens: every request is compared with each.
const TOKENS_MAX: usize = 1000;
const DIGEST_BYTES: usize = 32;

/// What a token may be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Produce = 1,
    Consume = 2,
    Admin = 4,
}

impl Scope {
    const ALL: [Scope; 3] = [Scope::Produce, Scope::Consume, Scope::Admin];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Scope::Produce => "produce",
            Scope::Consume => "consume",
            Scope::Admin => "admin",
        }
    }
}

/// What one token is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scopes(u8);

impl Scopes {
    pub(crate) fn has(self, scope: Scope) -> bool {
        self.0 & scope as u8 != 0
    }

    /// A comma-separated list, each scope once.
    fn parse(text: &str) -> Option<Scopes> {
        text.split(',').try_fold(Scopes::default(), |scopes, name| {
            let scope = Scope::ALL.into_iter().find(|scope| scope.name() == name)?;
            (!scopes.has(scope)).then_some(Scopes(scopes.0 | scope as u8))
        })
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> =
            Scope::ALL.into_iter().filter(|scope| self.has(*scope)).map(Scope::name).collect();
        f.write_str(&names.join(","))
    }
}

/// Why a token is not good for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unknown,
    Expired,
}

struct Token {
    digest: [u8; DIGEST_BYTES],
    scopes: Scopes,
    /// Milliseconds since 1970 from which on it is not good for anything.
    expires_ms: i64,
    line: usize,
}

/// The tokens of a file.
pub(crate) struct Tokens(Vec<Token>);

impl Tokens {
    /// Reads the first of the files.
    pub(crate) fn read(files: &[PathBuf]) -> Result<Tokens, FileError> {
        let path = &files[0];
        let content = read(path)?;
        let text = str::from_utf8(&content).map_err(|_| FileError::new(path, "it is not text in UTF-8"))?;
        let tokens = Tokens::parse(text).map_err(|problem| FileError::new(path, problem))?;
        tell_who_may_read(path);
        Ok(tokens)
    }

    fn parse(text: &str) -> Result<Tokens, String> {
        let mut tokens: Vec<Token> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let token = parse_line(line, text).map_err(|problem| format!("line {line}: {problem}"))?;
            if let Some(other) = tokens.iter().find(|other| other.digest == token.digest) {
                let other = other.line;
                return Err(format!("line {line}: the token is that of line {other}; give each its own"));
            }
            tokens.push(token);
        }
        match tokens.len() {
            0 => {
                Err("it has no token, so that nobody could connect; write lines `TOKEN SCOPES [EXPIRES]`"
                    .into())
            }
            count if count > TOKENS_MAX => Err(format!("it has {count} tokens; there may be {TOKENS_MAX}")),
            _ => Ok(Tokens(tokens)),
        }
    }

    /// What the token is good for. Takes as long whichever token it is, if any.
    pub(crate) fn check(&self, token: &str, now_ms: i64) -> Result<Scopes, Refusal> {
        let digest = sha256(token);
        let mut found = u64::MAX;
        for (index, token) in (0..).zip(&self.0) {
            let same: Choice = token.digest.ct_eq(&digest);
            found = u64::conditional_select(&found, &index, same);
        }
        let token = self.0.get(found as usize).ok_or(Refusal::Unknown)?;
        if now_ms < token.expires_ms { Ok(token.scopes) } else { Err(Refusal::Expired) }
    }
}

fn parse_line(line: usize, text: &str) -> Result<Token, &'static str> {
    let mut fields = text.split_ascii_whitespace();
    let (Some(token), Some(scopes), expires, None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("it is not `TOKEN SCOPES [EXPIRES]`: two or three fields with blanks between them");
    };
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) || !is_token(token) {
        return Err(
            "the first field is not a token: one has 16 to 512 characters out of a-z, A-Z, 0-9 and -._~+/, and may \
             end in =",
        );
    }
    let scopes = Scopes::parse(scopes).ok_or(
        "the second field is not a list of scopes: write produce, consume or admin, or several with commas between \
         them",
    )?;
    let expires_ms = match expires {
        None => i64::MAX,
        Some(expires) => expiry::parse(expires)
            .ok_or("the third field is not a time: write one in UTC, such as 2026-12-31T00:00:00Z")?,
    };
    Ok(Token { digest: sha256(token), scopes, expires_ms, line })
}

/// Whether it can be sent as a bearer token (RFC 6750, 2.1).
fn is_token(text: &str) -> bool {
    let text = text.trim_end_matches('=');
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

fn sha256(token: &str) -> [u8; DIGEST_BYTES] {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn tell_who_may_read(path: &Path) {
    const OTHERS_READ: u32 = 0o004;
    if let Ok(metadata) = path.metadata()
        && metadata.permissions().mode() & OTHERS_READ != 0
    {
        tracing::warn!(
            "{}: everybody on this host may read the tokens; take that right away (chmod o-r)",
            path.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: &str = "# who writes\n\nAAAAAAAAAAAAAAAA produce\n  bbbbbbbbbbbbbbbb==\tconsume,admin  1970-01-01T00:00:01Z \r\n";

    #[test]
    fn a_token_is_good_for_its_scopes_until_it_expires() {
        let tokens = Tokens::parse(TOKENS).unwrap();
        let scopes = tokens.check("AAAAAAAAAAAAAAAA", i64::MAX - 1).unwrap();
        assert_eq!(Scope::ALL.map(|scope| scopes.has(scope)), [true, false, false]);
        let scopes = tokens.check("bbbbbbbbbbbbbbbb==", 999).unwrap();
        assert_eq!(Scope::ALL.map(|scope| scopes.has(scope)), [false, true, true]);
        assert_eq!(scopes.to_string(), "consume,admin");
        assert_eq!(tokens.check("bbbbbbbbbbbbbbbb==", 1000), Err(Refusal::Expired));
        for other in ["", "AAAAAAAAAAAAAAAa", "AAAAAAAAAAAAAAA", "bbbbbbbbbbbbbbbb"] {
            assert_eq!(tokens.check(other, 0), Err(Refusal::Unknown));
        }
    }

    #[test]
    fn a_line_that_is_wrong_is_named_and_not_shown() {
        let secret = "secretsecretsecret";
        let cases = [
            (secret.to_owned(), "two or three fields"),
            (format!("{secret} produce 2026-12-31T00:00:00Z x"), "two or three fields"),
            (format!("{} produce", &secret[..15]), "16 to 512"),
            (format!("{} produce", "s".repeat(513)), "16 to 512"),
            (format!("{secret}% produce"), "16 to 512"),
            ("================ produce".to_owned(), "16 to 512"),
            (format!("{secret}ü produce"), "16 to 512"),
            (format!("producingproducing {secret}"), "list of scopes"),
            (format!("{secret} produce,"), "list of scopes"),
            (format!("{secret} Produce"), "list of scopes"),
            (format!("{secret} produce,produce"), "list of scopes"),
            (format!("{secret} produce tomorrow"), "the third field is not a time"),
            (format!("{secret} produce\n{secret} consume"), "that of line 2"),
        ];
        for (line, problem) in cases {
            let said = Tokens::parse(&format!("# tokens\n{line}\n")).err().unwrap();
            let number = if problem.starts_with("that") { 3 } else { 2 };
            assert!(said.starts_with(&format!("line {number}: ")) && said.contains(problem), "{said}");
            assert!(!said.contains(&secret[..15]), "{said}");
        }
    }

    #[test]
    fn there_are_some_tokens_and_not_too_many() {
        for empty in ["", "\n\n", "# AAAAAAAAAAAAAAAA produce"] {
            assert!(Tokens::parse(empty).err().unwrap().contains("it has no token"));
        }
        let many = |count| (0..count).map(|number| format!("{number:016} admin\n")).collect::<String>();
        let tokens = Tokens::parse(&many(TOKENS_MAX)).unwrap();
        assert!(tokens.check(&format!("{:016}", TOKENS_MAX - 1), 0).is_ok());
        assert!(Tokens::parse(&many(TOKENS_MAX + 1)).err().unwrap().contains("it has 1001 tokens"));
    }
}
