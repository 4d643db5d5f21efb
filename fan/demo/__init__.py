"""The service that `fan demo` shows: `greeter`, in two versions, one module each."""
