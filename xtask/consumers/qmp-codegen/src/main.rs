// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client whose types are generated, and which has no other dependencies.

use qmp_proto::{CommandType, DecodeError, Json, Value, from_value};

mod qmp {
    include!(concat!(env!("OUT_DIR"), "/qmp.rs"));
}

use qmp::commands::XResize;
use qmp::{Resize, ResizeBacking, ResizeType, XResizeResult};

fn main() -> Result<(), DecodeError> {
    let file = ResizeType::File(qmp::ResizeFile { self_: "disk0".to_owned() });
    let mut resize = Resize::new(file, u64::MAX);
    let absent = r#"{"type": "file", "self": "disk0", "size": 18446744073709551615}"#;
    assert_eq!(Json::encode(&resize).expect("text").as_str(), absent);
    resize.backing = Some(ResizeBacking::Null);
    let null = Json::encode(&resize).expect("text");
    assert_eq!(null.decode::<Resize>()?, resize);
    assert!(null.as_str().ends_with(r#""backing": null}"#));

    let sent = XResize::encode_arguments(&resize).expect("text");
    assert_eq!((XResize::NAME, sent), ("x-resize", Some(null)));
    let told = Json::from(&"{'size': -1, 'new': {}}".parse::<Value>().expect("JSON"));
    assert_eq!(XResize::decode_result(&told)?, XResizeResult { size: -1 });
    let newer = from_value::<Resize>("{'type': '3x', 'size': 1}".parse().expect("JSON"))?;
    assert!(matches!(newer.r#type, ResizeType::Unknown(_)));
    println!("types are generated");
    Ok(())
}
