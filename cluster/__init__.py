"""Where it runs: settings, local servers, job submission."""
