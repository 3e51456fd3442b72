use fault::Kind;

use super::*;

fn chat(more: &str) -> Result<Wanted, Fault> {
    let comma = if more.is_empty() { "" } else { "," };
    let body = format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "hi"}}]{comma} {more}}}"#);
    Wanted::read(body.as_bytes(), Form::Chat)
}

fn completion(more: &str) -> Result<Wanted, Fault> {
    let body = format!(r#"{{"model": "m", "prompt": "once"{more}}}"#);
    Wanted::read(body.as_bytes(), Form::Completion)
}

fn good(more: &str) -> ChatRequest {
    chat(more).unwrap_or_else(|fault| panic!("{more}: {fault}")).request
}

#[test]
fn what_is_not_said_is_left_to_the_model() {
    let wanted = chat("").expect("a plain chat");
    assert!(!wanted.stream && !wanted.include_usage && wanted.answers == 1);
    let expected = ChatRequest {
        model: Some("m".to_owned()),
        messages: wanted.request.messages.clone(),
        sampling: Some(Sampling::default()),
        n: Some(1),
        ..ChatRequest::default()
    };
    assert_eq!(wanted.request, expected);
    assert_eq!(completion("").expect("a plain prompt").request.max_tokens, Some(16), "as OpenAI's");
}

#[test]
fn every_option_reaches_the_server() {
    let request = good(
        r#""temperature": 0.5, "top_p": 0.25, "top_k": 40, "min_p": 0.125, "repetition_penalty": 1.5,
           "presence_penalty": -2, "frequency_penalty": 2, "logit_bias": {"7": -100, "9": 1.5}, "seed": -5,
           "stop": ["a", "b"], "n": 3, "max_completion_tokens": 9, "logprobs": true, "top_logprobs": 4,
           "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"b": 1, "a": 2}}},
           "prompt_cache_key": "mine""#,
    );
    let sampling = request.sampling.expect("always there");
    assert_eq!(sampling.temperature, Some(0.5.into()));
    assert_eq!(sampling.top_p, Some(0.25.into()));
    assert_eq!(sampling.top_k, Some(40));
    assert_eq!(sampling.min_p, Some(0.125.into()));
    assert_eq!(sampling.repetition_penalty, Some(1.5.into()));
    assert_eq!(sampling.presence_penalty, Some((-2.0).into()));
    assert_eq!(sampling.frequency_penalty, Some(2.0.into()));
    assert_eq!(sampling.logit_bias, Some([(7, (-100.0).into()), (9, 1.5.into())].into()));
    assert_eq!(sampling.seed, Some(-5));
    assert_eq!(request.stop, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((request.n, request.max_tokens, request.logprobs), (Some(3), Some(9), Some(4)));
    let format = request.format.expect("asked for");
    assert_eq!(format.kind, Some(FormatKind::JSON_SCHEMA));
    assert_eq!(format.schema.as_deref(), Some(r#"{"b": 1, "a": 2}"#), "in the order of the client");
    assert_eq!(request.conversation.as_deref(), Some("mine"));
}

#[test]
fn the_ways_to_say_the_same_are_the_same() {
    assert_eq!(good(r#""max_tokens": 5"#).max_tokens, Some(5));
    assert_eq!(good(r#""stop": "x""#).stop, Some(vec!["x".to_owned()]));
    assert_eq!(good(r#""logprobs": true"#).logprobs, Some(0));
    assert_eq!(good(r#""logprobs": false, "top_logprobs": 0"#).logprobs, None);
    assert_eq!(good(r#""response_format": {"type": "text"}"#).format.and_then(|one| one.kind), Some(FormatKind::TEXT));
    let completion = completion(r#", "echo": true, "best_of": 2, "n": 2, "suffix": """#).expect("good");
    assert_eq!((completion.echo.as_deref(), completion.request.prompt.as_deref()), (Some("once"), Some("once")));
    let listed = Wanted::read(br#"{"model": "m", "prompt": ["once"]}"#, Form::Completion).expect("a list of one");
    assert_eq!(listed.request.prompt.as_deref(), Some("once"));
    // The smallest set of likeliest tokens is not empty; the servers take no 0.
    assert!(good(r#""top_p": 0"#).sampling.and_then(|it| it.top_p).is_some_and(|top_p| top_p.0 as f32 > 0.0));
}

#[test]
fn what_changes_nothing_is_passed_over() {
    let plain = good("");
    for more in [
        r#""user": "ann", "metadata": {"a": "b"}, "store": true, "service_tier": "auto", "safety_identifier": "x""#,
        r#""parallel_tool_calls": true, "prediction": {"type": "content", "content": "x"}, "chat_id": "7""#,
        r#""tools": [ ], "tool_choice": "auto", "verbosity": "medium", "length_penalty": 1.0, "functions": null, "audio": null, "modalities": ["text"]"#,
        r#""stream_options": null, "reasoning_effort": null, "n": 1, "ignore_eos": false"#,
    ] {
        assert_eq!(good(more), plain, "{more}");
    }
}

#[test]
fn what_would_change_the_answer_and_is_not_there_is_refused_by_its_name() {
    for (name, value) in [
        ("tools", r#"[{"type": "function"}]"#),
        ("tool_choice", r#""required""#),
        ("functions", r#"[{"name": "f"}]"#),
        ("function_call", r#"{"name": "f"}"#),
        ("add_generation_prompt", "false"),
        ("echo", "true"),
        ("audio", r#"{"voice": "alloy"}"#),
        ("reasoning_effort", r#""high""#),
        ("web_search_options", r#"{"search_context_size": "low"}"#),
        ("guided_json", r#"{"type": "object"}"#),
        ("ignore_eos", "true"),
    ] {
        let fault = chat(&format!("\"{name}\": {value}")).expect_err(name);
        assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, Some(name)));
        assert!(fault.message.starts_with(name), "{fault}");
    }
    let fault = chat(r#""modalities": ["text", "audio"]"#).expect_err("no sound");
    assert_eq!(fault.param.as_deref(), Some("modalities[1]"));
    assert_eq!(completion(r#", "suffix": "end""#).expect_err("no middle").param.as_deref(), Some("suffix"));
}

#[test]
fn every_bad_value_is_named_with_what_is_allowed() {
    let many_stops = format!("\"stop\": [{}]", vec!["\"x\""; 17].join(","));
    let long_stop = format!("\"stop\": \"{}\"", "x".repeat(257));
    let biases: Vec<String> = (0..301).map(|token| format!("\"{token}\": 1")).collect();
    let biases = format!("\"logit_bias\": {{{}}}", biases.join(","));
    for (more, param, says) in [
        (r#""temperature": 2.1"#, "temperature", "is 2.1, allowed is a number from 0 to 2"),
        (r#""top_p": -0.1"#, "top_p", "a number from 0 to 1"),
        (r#""top_k": -1"#, "top_k", "a whole number from 0 to 2147483647"),
        (r#""min_p": 2"#, "min_p", "a number from 0 to 1"),
        (r#""repetition_penalty": 0"#, "repetition_penalty", "above 0"),
        (r#""presence_penalty": 3"#, "presence_penalty", "a number from -2 to 2"),
        (r#""frequency_penalty": "x""#, "frequency_penalty", "is \"x\", allowed is a number from -2 to 2"),
        (r#""logit_bias": {"x": 1}"#, "logit_bias", "\"x\""),
        (r#""logit_bias": {"5": 101}"#, "logit_bias.5", "from -100 to 100"),
        (&biases, "logit_bias", "more than 300"),
        (r#""seed": 1.5"#, "seed", "a whole number"),
        (r#""stop": 5"#, "stop", "a list"),
        (r#""stop": [""]"#, "stop", "1 to 256 bytes"),
        (&many_stops, "stop", "more than 16"),
        (&long_stop, "stop", "1 to 256 bytes"),
        (r#""n": 0"#, "n", "from 1 to 16"),
        (r#""n": 17"#, "n", "from 1 to 16"),
        (r#""max_tokens": 0"#, "max_tokens", "from 1 to"),
        (r#""max_tokens": 1, "max_completion_tokens": 1"#, "max_tokens", "one of them"),
        (r#""logprobs": 3"#, "logprobs", "true or false"),
        (r#""top_logprobs": 3"#, "top_logprobs", "logprobs true"),
        (r#""logprobs": true, "top_logprobs": 21"#, "top_logprobs", "from 0 to 20"),
        (r#""stream": "yes""#, "stream", "true or false"),
        (r#""stream_options": {"include_usage": true}"#, "stream_options", "with stream true"),
        (r#""response_format": "json""#, "response_format", "an object"),
        (r#""response_format": {"type": "xml"}"#, "response_format.type", "json_schema"),
        (r#""response_format": {"type": "json_schema"}"#, "response_format.json_schema", "is missing"),
        (
            r#""response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}}"#,
            "response_format.json_schema.schema",
            "an object",
        ),
    ] {
        let fault = chat(more).expect_err(more);
        assert_eq!((fault.kind, fault.param.as_deref()), (Kind::InvalidInput, Some(param)), "{fault}");
        assert!(fault.message.contains(says), "{fault}");
    }
    for (more, param, says) in [
        (r#", "logprobs": 21"#, "logprobs", "from 0 to 20"),
        (r#", "logprobs": 1, "echo": true"#, "echo", "not supported"),
        (r#", "best_of": 2"#, "best_of", "the same as n, which is 1"),
    ] {
        let fault = completion(more).expect_err(more);
        assert_eq!(fault.param.as_deref(), Some(param), "{fault}");
        assert!(fault.message.contains(says), "{fault}");
    }
    for prompt in ["[1, 2]", r#"["a", "b"]"#, "5", "[]", "{}"] {
        let body = format!(r#"{{"model": "m", "prompt": {prompt}}}"#);
        let fault = Wanted::read(body.as_bytes(), Form::Completion).expect_err(prompt);
        assert_eq!(fault.param.as_deref(), Some("prompt"), "{fault}");
    }
    for (body, param) in [
        (r#"{"messages": [{"role": "user", "content": "x"}]}"#, "model"),
        (r#"{"model": "m"}"#, "messages"),
        (r#"{"model": 5, "messages": []}"#, "model"),
    ] {
        let fault = Wanted::read(body.as_bytes(), Form::Chat).expect_err(body);
        assert_eq!(fault.param.as_deref(), Some(param), "{fault}");
    }
    assert_eq!(chat_of_model("no/../model").kind, Kind::NotFound);
    let schema = format!(r#"{{"x": "{}"}}"#, "x".repeat(SCHEMA));
    let format = format!(r#""response_format": {{"type": "json_schema", "json_schema": {{"schema": {schema}}}}}"#);
    assert_eq!(chat(&format).expect_err("too long").kind, Kind::TooLarge);
}

#[test]
fn what_the_server_finds_wrong_is_named_as_it_was_sent() {
    let of = |wanted: Wanted, param: &'static str| {
        wanted.as_asked(Fault::too_large("no").with_param(param)).param.map(|param| param.into_owned())
    };
    for (more, param) in
        [(r#""max_tokens": 5"#, "max_tokens"), (r#""max_completion_tokens": 5"#, "max_completion_tokens")]
    {
        assert_eq!(of(chat(more).expect(more), "max_tokens").as_deref(), Some(param));
    }
    assert_eq!(of(chat("").expect("plain"), "format").as_deref(), Some("response_format"));
    assert_eq!(of(chat("").expect("plain"), "messages").as_deref(), Some("messages"));
}

fn chat_of_model(name: &str) -> Fault {
    let body = format!(r#"{{"model": "{name}", "messages": [{{"role": "user", "content": "x"}}]}}"#);
    Wanted::read(body.as_bytes(), Form::Chat).expect_err(name)
}

#[test]
fn the_description_names_what_is_read() {
    let api: serde_json::Value = serde_json::from_str(crate::description::text_of_all()).expect("JSON");
    for (name, form, needs) in [
        ("ChatBody", Form::Chat, r#""messages": [{"role": "user", "content": "x"}]"#),
        ("CompletionBody", Form::Completion, r#""prompt": "x""#),
    ] {
        let schemas = &api["components"]["schemas"];
        let parts = schemas[name]["allOf"].as_array().expect("its own fields, and those of both");
        let shared = schemas["GenerationOptions"]["properties"].as_object().expect("fields");
        let own = parts.iter().filter_map(|part| part["properties"].as_object()).flatten();
        for (field, _) in own.chain(shared) {
            // A value of no field's type: whoever reads the field refuses it.
            let body = format!(r#"{{"model": "m", {needs}, "{field}": [[[]]]}}"#);
            let twice = needs.contains(&format!("\"{field}\"")) || field == "model";
            assert!(twice || Wanted::read(body.as_bytes(), form).is_err(), "{name}.{field} is not read");
        }
    }
}
