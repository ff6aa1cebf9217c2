//! What an S3 server's answer means.

use super::{credentials::NoCredentials, http::Late};
use object_store::client::{HttpError, HttpErrorKind};
use std::{error::Error, str};

/// Characters that are kept of a server's message.
const MESSAGE_CHARS_MAX: usize = 300;

/// An answer that is not what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the server answered {status} {code} ({message})")]
pub(crate) struct Answer {
    status: u16,
    /// S3's name of the error; empty when the answer has none.
    code: String,
    message: String,
}

/// An answer that stays what it is until an operator acts.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Refusal(Answer);

/// What to do about an answer.
pub(crate) enum Verdict {
    /// Hand it on: a success, or one of the answers that are part of the protocol (there is no such object, there is one).
    Take,
    /// Ask again.
    Retry(Answer),
    /// Give up.
    Refuse(Refusal),
}

impl Verdict {
    pub(crate) fn of(status: u16, body: &[u8]) -> Verdict {
        if status < 300 || status == 304 {
            return Verdict::Take;
        }
        let document = str::from_utf8(body).unwrap_or_default();
        let code = element(document, "Code").to_owned();
        let message: String = element(document, "Message").chars().take(MESSAGE_CHARS_MAX).collect();
        let answer = Answer { status, code, message };
        match (status, answer.code.as_str()) {
            (404, "NoSuchBucket") | (501, _) => Verdict::Refuse(Refusal(answer)),
            (404 | 412 | 416, _) => Verdict::Take,
            // What is created at the same time by two, or removed meanwhile: S3 asks to try again.
            (409, "ConditionalRequestConflict" | "OperationAborted") | (400, "RequestTimeout") => {
                Verdict::Retry(answer)
            }
            (409, _) => Verdict::Take,
            (408 | 429 | 500.., _) => Verdict::Retry(answer),
            _ => Verdict::Refuse(Refusal(answer)),
        }
    }
}

/// The text of an element of S3's flat error document; empty when there is none.
fn element<'a>(document: &'a str, name: &str) -> &'a str {
    let after = document.split_once(&format!("<{name}>")).map_or("", |(_, after)| after);
    after.split_once("</").map_or("", |(text, _)| text)
}

impl Refusal {
    fn sentence(&self) -> String {
        let Answer { status, code, message } = &self.0;
        let advice = match code.as_str() {
            "NoSuchBucket" => {
                "there is no such bucket; create it, or correct the bucket in the URL or AWS_ENDPOINT_URL"
            }
            "InvalidAccessKeyId" | "NotSignedUp" => {
                "it does not know the access key; correct AWS_ACCESS_KEY_ID, or AWS_ENDPOINT_URL if it is another's"
            }
            "SignatureDoesNotMatch" => {
                "the signature does not match; correct AWS_SECRET_ACCESS_KEY, and AWS_REGION if it differs"
            }
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                "the session token is not valid; set a new AWS_SESSION_TOKEN with its key, or none for a permanent key"
            }
            "RequestTimeTooSkewed" => "this machine's clock and the server's differ too much; set it",
            "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect" => {
                "the bucket seems to be in another region; set AWS_REGION"
            }
            "NotImplemented" => {
                "the server does not do what is asked of it; StreamHouse needs PUT with If-None-Match"
            }
            _ if (300..400).contains(status) => {
                "the bucket seems to be elsewhere; set AWS_REGION or AWS_ENDPOINT_URL"
            }
            _ if matches!(status, 401 | 403) => {
                "access is denied; the credentials (AWS_ACCESS_KEY_ID) need s3:PutObject, s3:GetObject, s3:DeleteObject \
                 and s3:ListBucket there"
            }
            _ => "correct the URL or the AWS_* variables",
        };
        let said = [code.as_str(), message.as_str()].into_iter().filter(|text| !text.is_empty());
        let said: Vec<_> = said.collect();
        let said = if said.is_empty() { String::new() } else { format!(", {}", said.join(": ")) };
        format!("{advice} (the server said {status}{said})")
    }
}

/// Why a server or the lack of credentials ends an operation for good; `None` for all other errors.
pub(crate) fn refusal(error: &object_store::Error) -> Option<String> {
    let missing =
        causes(error).find_map(|cause| cause.downcast_ref::<NoCredentials>().map(|none| none.to_string()));
    missing.or_else(|| causes(error).find_map(|cause| cause.downcast_ref::<Refusal>().map(Refusal::sentence)))
}

/// Whether the server has no room.
pub(crate) fn is_full(error: &object_store::Error) -> bool {
    causes(error).any(|cause| cause.downcast_ref::<Answer>().is_some_and(|answer| answer.status == 507))
}

/// Whether no answer came that says anything about the object: asking for something else would not get one either.
pub(crate) fn did_not_answer(error: &object_store::Error) -> bool {
    causes(error).any(|cause| {
        let failed = |error: &HttpError| error.kind() != HttpErrorKind::Unknown;
        cause.is::<Late>() || cause.downcast_ref().is_some_and(failed)
    })
}

fn causes<'a>(error: &'a object_store::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, code: &str) -> &'static str {
        let body =
            format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>so it is</Message></Error>");
        match Verdict::of(status, body.as_bytes()) {
            Verdict::Take => "take",
            Verdict::Retry(_) => "retry",
            Verdict::Refuse(_) => "refuse",
        }
    }

    #[test]
    fn answers_that_may_change_are_asked_for_again() {
        for (status, code, expected) in [
            (200, "", "take"),
            (206, "", "take"),
            (404, "NoSuchKey", "take"),
            (404, "NoSuchBucket", "refuse"),
            (409, "ConditionalRequestConflict", "retry"),
            (409, "Other", "take"),
            (412, "PreconditionFailed", "take"),
            (416, "InvalidRange", "take"),
            (400, "RequestTimeout", "retry"),
            (400, "InvalidArgument", "refuse"),
            (403, "AccessDenied", "refuse"),
            (301, "PermanentRedirect", "refuse"),
            (429, "", "retry"),
            (500, "InternalError", "retry"),
            (501, "NotImplemented", "refuse"),
            (503, "SlowDown", "retry"),
        ] {
            assert_eq!(verdict(status, code), expected, "{status} {code}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let sentence = |status, body: &str| match Verdict::of(status, body.as_bytes()) {
            Verdict::Refuse(refusal) => refusal.sentence(),
            _ => panic!("not a refusal"),
        };
        assert_eq!(
            sentence(403, "<Error><Code>SignatureDoesNotMatch</Code><Message>No match.</Message></Error>"),
            "the signature does not match; correct AWS_SECRET_ACCESS_KEY, and AWS_REGION if it differs (the server \
             said 403, SignatureDoesNotMatch: No match.)"
        );
        assert!(sentence(403, "").ends_with("and s3:ListBucket there (the server said 403)"));
        assert!(sentence(418, "a teapot").contains("said 418"));
        let long = format!("<Message>{}</Message>", "a".repeat(100_000));
        assert!(sentence(403, &long).len() < 1000);
    }
}
