//! The page in a browser without a window. Its pictures are kept in the folder `browser` of the target folder.

use super::build::{folder, node};
use pillarbox_browser::site;
use std::net::TcpListener;
use std::sync::OnceLock;

/// Serves the page for as long as the tests run.
fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let folder = site::build().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || site::serve(&listener, &folder));
        address
    })
}

fn visit(test: &str) {
    node("page.mjs", &[address(), folder().to_str().unwrap(), test]);
}

#[test]
fn a_visitor_breaks_everything_and_nothing_is_lost() {
    visit("a_visitor_breaks_everything_and_nothing_is_lost");
}

#[test]
fn an_address_is_a_run() {
    visit("an_address_is_a_run");
}

#[test]
fn every_show_shows_what_it_says() {
    visit("every_show_shows_what_it_says");
}

#[test]
fn a_phone_in_the_dark() {
    visit("a_phone_in_the_dark");
}

#[test]
fn a_keyboard_is_enough_and_nothing_need_move() {
    visit("a_keyboard_is_enough_and_nothing_need_move");
}
