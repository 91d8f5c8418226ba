//! The program of the engine tests' image. The tests compile it by themselves, statically; it does what its first
//! argument says.

use std::io::{Read, Write};

fn main() {
    let role = std::env::args().nth(1).unwrap_or_default();
    let code = match role.as_str() {
        "wait" => loop {
            std::thread::park();
        },
        "greet" => {
            println!("out");
            eprintln!("err");
            3
        }
        // To a client that guesses framing from the first byte this is a frame of four gigabytes.
        "evil" => {
            std::io::stdout().write_all(b"\x01\0\0\0\xff\xff\xff\xff and on").unwrap();
            0
        }
        "cat" => {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes).unwrap();
            std::io::stdout().write_all(&bytes).unwrap();
            7
        }
        "environment" => {
            for (name, value) in std::env::vars() {
                println!("{name}={value}");
            }
            0
        }
        "confinement" => {
            print!("{}", std::fs::read_to_string("/proc/self/status").unwrap());
            print!("{}", std::fs::read_to_string("/proc/self/limits").unwrap());
            for place in ["/written", "/tmp/written"] {
                println!("{place}: {:?}", std::fs::write(place, "x").err().map(|error| error.kind()));
            }
            0
        }
        "eat" => {
            let mut eaten: Vec<Vec<u8>> = Vec::new();
            loop {
                eaten.push(vec![1; 1 << 20]);
            }
        }
        _ => 2,
    };
    std::process::exit(code);
}
