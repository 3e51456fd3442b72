//! The pages in a real browser.

use e2e::{Parts, Stand, browse_with_pictures, model_cache, repository};

#[test]
fn a_person_uploads_a_picture_and_reads_what_it_is() {
    let only = ["fashion-mnist", "mnist", "efficientnet-lite0"].map(str::to_owned).to_vec();
    let stand =
        Stand::start(Parts { models: vec![repository().join("models"), model_cache()], only, ..Parts::default() });
    let seen = browse_with_pictures("page.mjs", stand.http().base());
    assert_eq!(seen["address"], "/upload");
    assert_eq!(seen["models"].as_array().map(Vec::len), Some(3), "{seen}");
    for way in ["label", "keyboard", "dropped", "pasted", "plain"] {
        assert!(seen[way].as_str().is_some_and(|text| text.contains("Ankle boot")), "{way}: {seen}");
    }
    assert_eq!(seen["bars"], 5);
    assert!(seen["picture"].as_u64() >= Some(1), "{seen}");
    assert!(seen["photo"].as_str().is_some_and(|text| text.contains("espresso")), "{seen}");
    let stops = seen["stops"].to_string();
    assert!(stops.contains("file") && stops.contains("submit"), "every control is reached by Tab: {stops}");
    assert!(seen["alert"].as_str().is_some_and(|text| text.len() > 10), "{seen}");
    assert_eq!(seen["overflow"], 0, "no sideways scrolling on a phone");
}
