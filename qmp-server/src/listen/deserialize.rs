// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses and how to listen, as written in a configuration file.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Draft, Listen};
use crate::transport::{Address, AddressError, Connect};

/// A string as on the command line.
impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

/// A string as on the command line, with options.
impl<'de> Deserialize<'de> for Connect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Connect, D::Error> {
        deserializer.deserialize_str(Parsed(PhantomData))
    }
}

/// Parses a string; a visitor that fails is told of with the place of the string.
pub(crate) struct Parsed<T>(pub(crate) PhantomData<T>);

impl<T: FromStr<Err = AddressError>> Visitor<'_> for Parsed<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as unix:PATH")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// A string as on the command line, or a map with an `address` and options of the same names. Options
/// that are on or off are booleans there, and what may be given more than once is a list.
impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listen, D::Error> {
        deserializer.deserialize_any(ListenVisitor)
    }
}

struct ListenVisitor;

impl<'de> Visitor<'de> for ListenVisitor {
    type Value = Listen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ADDR[,OPTION=VALUE]..., or a table with an address and options")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Listen, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listen, A::Error> {
        let mut draft = Draft::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value_seed(Member { draft: &mut draft, name: &name })?;
        }
        draft.finish().map_err(A::Error::custom)
    }
}

/// Takes the value of one member. Errors are told while it is being read, so that its place is known.
struct Member<'a> {
    draft: &'a mut Draft,
    name: &'a str,
}

impl Member<'_> {
    fn set<E: Error>(&mut self, value: &str) -> Result<(), E> {
        if self.name == "address" {
            self.draft.address = Some(value.parse().map_err(E::custom)?);
            return Ok(());
        }
        self.draft.set(self.name, Some(value)).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a boolean or a list of strings")
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        self.set(value)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.set(if value { "on" } else { "off" })
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element::<String>()? {
            self.set(&value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct File {
        listen: Vec<Listen>,
    }

    fn parse(text: &str) -> Result<Vec<Listen>, String> {
        let file: Result<File, _> = toml::from_str(text);
        file.map(|file| file.listen).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_string_and_a_table_say_the_same() {
        let strings = "listen = ['unix:/run/qmp.sock,mode=0660,pretty=on,role=observer', 'unix:qmp,abstract=on',
            'tls:h:1,cert=a,key=b,client-ca=c,allow-name=d,allow-name=e']";
        let tables = "
            [[listen]]
            address = 'unix:/run/qmp.sock'
            mode = '0660'
            pretty = true
            role = 'observer'
            [[listen]]
            address = 'unix:qmp'
            abstract = true
            [[listen]]
            address = 'tls:h:1'
            cert = 'a'
            key = 'b'
            client-ca = 'c'
            allow-name = ['d', 'e']";
        assert_eq!(parse(strings).unwrap(), parse(tables).unwrap());
    }

    #[track_caller]
    fn check_error(members: &str, expected: &str) {
        assert_eq!(parse(&format!("[[listen]]\n{members}")).unwrap_err(), expected);
    }

    #[test]
    fn mistakes_are_named() {
        check_error("mode = '0660'", "the address is missing");
        check_error("address = 'tcp:x'", "'tcp:x': expected tcp:HOST:PORT");
        check_error("address = 'unix:a'\ncolour = 'red'", "option 'colour=red' is unknown");
        check_error(
            "address = 'unix:a'\nmode = 660",
            "invalid type: integer `660`, expected a string, a boolean or a list of strings",
        );
        check_error("address = 'tls:h:1'\ncert = 'a'", "TLS needs cert=FILE and key=FILE");
    }
}
