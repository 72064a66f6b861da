//! Who an audit record speaks of: its identities are bare texts, and only their form tells what they name.

use crate::json::Text;

/// What an identity of a record names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Principal {
    /// An e-mail address: a person.
    Email,
    /// A UUID: a service principal's application id.
    Uuid,
    /// `System-User`: Databricks itself.
    System,
    /// Any other name: a group on whose behalf something ran, a display name.
    Name,
}

impl Principal {
    /// Tells by the form of the text.
    pub fn of(identity: &Text<'_>) -> Self {
        let text = identity.escaped();
        if text == "System-User" {
            Self::System
        } else if text.contains('@') {
            Self::Email
        } else if is_uuid(text.as_bytes()) {
            Self::Uuid
        } else {
            Self::Name
        }
    }
}

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_told_by_its_form() {
        for (text, expected) in [
            ("dana@example.com", Principal::Email),
            ("8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5f", Principal::Uuid),
            ("8C0F7F0E-3F42-4A7C-9B5D-6A1E2C3D4E5F", Principal::Uuid),
            ("System-User", Principal::System),
            ("data-eng-group", Principal::Name),
            ("8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5", Principal::Name),
            ("8c0f7f0e03f42-4a7c-9b5d-6a1e2c3d4e5f", Principal::Name),
            ("8c0f7f0e-3f42-4a7c-9b5d-6a1e2c3d4e5g", Principal::Name),
            ("", Principal::Name),
        ] {
            assert_eq!(Principal::of(&Text::from_plain(text)), expected, "{text}");
        }
    }
}
