//! The digest by which an edit of a certificate shows.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Certificate;

/// Where the digest is.
const MEMBER: &str = "digest";

/// The certificate with its digest.
pub fn sealed(certificate: Certificate) -> Result<Certificate, serde_json::Error> {
    let digest = of(&serde_json::to_value(&certificate)?);
    Ok(Certificate { digest, ..certificate })
}

/// The digest that a document must have.
pub(super) fn of(document: &Value) -> String {
    let mut text = String::new();
    canonical(document, true, &mut text);
    text_digest(&text)
}

/// SHA-256 of a text.
pub fn text_digest(text: &str) -> String {
    let hex: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Appends a value with sorted keys and nothing between its tokens; at the top without the digest itself.
fn canonical(value: &Value, top: bool, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().filter(|(key, _)| !top || *key != MEMBER).collect();
            members.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (n, (key, value)) in members.into_iter().enumerate() {
                text.push_str(if n > 0 { "," } else { "" });
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(value, false, text);
            }
            text.push('}');
        }
        Value::Array(values) => {
            text.push('[');
            for (n, value) in values.iter().enumerate() {
                text.push_str(if n > 0 { "," } else { "" });
                canonical(value, false, text);
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}
