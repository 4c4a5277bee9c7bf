//! Enums of strings that keep values this version does not know.

use alloc::string::String;
use core::fmt;

/// A value that this version doesn't know, as Pleo spelled it.
///
/// Only parsing makes one, so it is never a value that this version knows. A later minor version may
/// know it: match the variant `Other` by `_`, and compare its text by `as_str`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OtherValue(String);

impl OtherValue {
    /// For `open_enum!`; not public API.
    #[doc(hidden)]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the value as Pleo spelled it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for OtherValue {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for OtherValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Declares an enum of strings with a variant `Other` for unknown strings.
///
/// Parsing ignores ASCII case. A declared string is written as declared, so its letter case is lost;
/// any other string is written as it was read. For `pleo-api`; not public API.
#[doc(hidden)]
#[macro_export]
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        ///
        /// Parse it with [`str::parse`] or `from`, which never fail and ignore letter case. The
        /// letter case of a known value is not kept, that of an unknown value is.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $(
                $(#[$variant_meta])*
                #[doc = concat!("\n\nSpelled `", $text, "`.")]
                $variant,
            )*
            /// A value that this version doesn't know. A later minor version may know it.
            Other($crate::OtherValue),
        }

        impl $name {
            /// Returns the value as Pleo's API spells it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(other) => other.as_str(),
                }
            }

            fn known(text: &str) -> Option<Self> {
                $(if text.eq_ignore_ascii_case($text) {
                    return Some(Self::$variant);
                })*
                None
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::known(text).unwrap_or_else(|| Self::Other($crate::OtherValue::new(text)))
            }
        }

        impl From<$crate::__private::String> for $name {
            fn from(text: $crate::__private::String) -> Self {
                Self::known(&text).unwrap_or_else(|| Self::Other($crate::OtherValue::new(text)))
            }
        }

        impl core::str::FromStr for $name {
            type Err = core::convert::Infallible;

            fn from_str(text: &str) -> Result<Self, core::convert::Infallible> {
                Ok(text.into())
            }
        }

        impl $crate::__private::serde::Serialize for $name {
            fn serialize<S>(&self, serializer: S) -> Result<S::Ok, S::Error>
            where
                S: $crate::__private::serde::Serializer,
            {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> $crate::__private::serde::Deserialize<'de> for $name {
            fn deserialize<D>(deserializer: D) -> Result<Self, D::Error>
            where
                D: $crate::__private::serde::Deserializer<'de>,
            {
                let text: $crate::__private::String =
                    $crate::__private::serde::Deserialize::deserialize(deserializer)?;
                Ok(text.into())
            }
        }
    };
}
