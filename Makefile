# The commands of incus-stt. STACK: dev, cpu, gpu … (stacks/), or one of your own there; without it,
# the stack that is selected: that of the last command, or of `pulumi stack select`; dev if none is.
ifndef STACK
UNNAMED = UNNAMED=1
STACK = $(eval STACK := $(or $(shell bootstrap/selected.sh),$(error no stack is known; name it: STACK=NAME)))$(STACK)
endif
# More words for Pulumi, or for pytest: make preview ARGS='--target …', make test ARGS='-k key'.
ARGS ?=
PULUMI = bootstrap/pulumi.sh $(STACK)
UNIT = tests/unit tests/agent tests/server/test_formats.py tests/server/test_settings.py
# What `make test` leaves to `make test-all`.
OFTEN = and not seldom
# Tests without Incus often wait: three processes for two cores.
WAITING = $$((($$(nproc) * 3 + 1) / 2))
# The shell scripts in git: by their name, or by their first line.
SCRIPTS = $$({ git grep -l '' -- '*.sh'; git grep -nE '^\#!.*[/ ](ba|da)?sh\b' | sed -n 's/:1:.*//p'; } | sort -u)
OPERATION = .venv/bin/python -m operations --stack $(STACK)

.PHONY: help up preview review drift outputs env backup restore destroy rotate-key status doctor updates
.PHONY: vram flush measure-vram ai-access stt test check
.PHONY: test-unit test-all test-faults
.PHONY: generate lock sbom setup tools ready venv venv-dev

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

up: setup ## Build or update everything, then print the outputs
	@$(PULUMI) up $(ARGS)
	@$(PULUMI) whole $(ARGS)

preview: ready ## Show what `up` would change (EXPECT_NO_CHANGES=1: fail if there is anything)
	@$(PULUMI) preview --diff $(if $(EXPECT_NO_CHANGES),--expect-no-changes) $(ARGS)

review: ready ## Write a comment on what a pull request changes (BASE=…, HEAD=…, OFFLINE=1, SANDBOX=1)
	@$(PULUMI) review "--base=$${BASE:-origin/main}" "--head=$${HEAD:-HEAD}" $(ARGS)

drift: ready ## Show what was changed on the host by hand (fails if there is anything)
	@$(PULUMI) drift

outputs: venv ## Print the outputs as JSON (SHOW_SECRETS=1: with the key)
	@$(PULUMI) outputs $(if $(SHOW_SECRETS),--show-secrets)

env: venv ## Print what makes plain `pulumi` work: eval "$(make -s env)"
	@bootstrap/cli.sh $(STACK)

rotate-key: setup ## Make a new API key; the STT service and Open WebUI restart with it (CLIENT=…: a client's)
	@set -f; targets=$$($(OPERATION) key-targets "--client=$${CLIENT:-}") || exit 1; \
	case $$($(PULUMI) outputs) in \
	    *stt_api_key*) $(PULUMI) up $$targets --suppress-outputs $(ARGS) && \
	        echo "incus-stt: the new key: make outputs STACK=$(STACK) SHOW_SECRETS=1" >&2 ;; \
	    *) echo "incus-stt: error: the stack has no key to rotate; \`make up\` makes one." >&2; exit 1 ;; \
	esac

status: venv ## Show what runs, since when and on what (JSON=1; fails if something does not run)
	@$(OPERATION) status $(if $(JSON),--json)

doctor: venv ## Check everything from the host to the last verification: good, doubtful or broken (JSON=1)
	@.venv/bin/python -m doctor --stack $(STACK) $(if $(JSON),--json)

updates: venv ## Install the distribution's security updates in every machine; restart what needs it
	@$(OPERATION) updates

vram: venv ## Show who holds the memory of the cards
	@$(OPERATION) vram

flush: venv ## Unload the models, after the transcription that is running
	@$(OPERATION) flush

ai-access: $(if $(DOMAIN),setup,venv) ## Give a domain the AI access (DOMAIN=…); without DOMAIN, say who has it
	@set -f; [ -n "$${DOMAIN:-}" ] || exec $(OPERATION) ai-access; \
	targets=$$($(OPERATION) ai-access-targets "--domain=$$DOMAIN") || exit 1; \
	$(PULUMI) set stt:aiAccess "$$DOMAIN" && $(PULUMI) up $$targets $(ARGS) && \
	    exec $(OPERATION) ai-access-verify

measure-vram: venv ## Measure what models take of the card (MODELS="tiny small")
	@$(OPERATION) measure --models "$(MODELS)"

stt: setup ## Bring up only the STT role, with whatever it needs
	@set -f; targets=$$($(OPERATION) stt-targets) || exit 1; $(PULUMI) up $$targets $(ARGS) && \
	    exec $(PULUMI) whole $(ARGS)

backup: venv ## Write the stack as one archive (FILE=…, WHOLE=1: with the models; BACKUP_PASSPHRASE_FILE)
	@bootstrap/backup.sh save $(STACK) "--file=$${FILE:-}" $(if $(WHOLE),--whole)

restore: venv ## Restore an archive (FILE=…; another STACK=, CONNECTION=, POOL=; FORCE=1 replaces files)
	@bootstrap/backup.sh restore "--file=$${FILE:-}" $(if $(UNNAMED),,"--stack=$(STACK)") \
	    "--connection=$${CONNECTION:-}" "--pool=$${POOL:-}" $(if $(FORCE),--force)

destroy: venv ## Remove everything that `up` made, after a list of it; asks at a terminal
	@$(UNNAMED) $(PULUMI) destroy $(ARGS)

check: venv-dev ## Check style and types
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
	@.venv/bin/shellcheck -x -P SCRIPTDIR $(SCRIPTS)

lock: venv-dev ## Renew every lock file and print the diff (ARGS='--upgrade-package NAME')
	@.venv/bin/python -m lock $(ARGS)

sbom: venv ## Print the software bill of materials, CycloneDX 1.6
	@.venv/bin/python -m lock sbom

generate: venv ## Write the generated tables and the schema
	@.venv/bin/python -m roles.document

# Exit status 5: ARGS selected none of these.
test: venv-dev setup check ## Run the tests, with a sample of the faults, on this machine's Incus; about 15 minutes
	@bootstrap/tests.sh
	@.venv/bin/pytest -n $(WAITING) --dist worksteal -m 'not e2e $(OFTEN)' $(ARGS) || [ $$? = 5 ]
	@.venv/bin/pytest -n auto --dist loadfile --no-loadscope-reorder -m 'e2e $(OFTEN)' $(ARGS) || [ $$? = 5 ]

test-all: ## Run all tests, as CI does, including the slow ones and those whose programs seldom change
	@STT_FAULTS=$${STT_FAULTS:-5} $(MAKE) --no-print-directory test OFTEN=

test-unit: venv-dev ## Run the tests that need neither Incus nor root, without sweeps; a minute or two
	@.venv/bin/pytest -n $(WAITING) --dist worksteal -m 'not e2e and not sweep $(OFTEN)' $(UNIT) $(ARGS)

test-faults: setup venv-dev ## Break 200 runs off, then STT servers (STT_FAULT_SEED=…); send one nonsense (STT_FUZZ_SEED=…)
	@STT_FAULTS=$${STT_FAULTS:-200} .venv/bin/pytest -s tests/e2e/test_convergence.py $(ARGS) || [ $$? = 5 ]
	@STT_GATEWAY_FAULTS=$${STT_GATEWAY_FAULTS:-40} STT_GATEWAY_REQUESTS=2000 .venv/bin/pytest -s tests/gateway/test_faults.py $(ARGS) || [ $$? = 5 ]
	@STT_GATEWAY_FAULTS=$${STT_GATEWAY_FAULTS:-20} STT_GATEWAY_REQUESTS=2000 .venv/bin/pytest -s tests/e2e/test_gateway.py -k befalls $(ARGS) || [ $$? = 5 ]
	@STT_FUZZ_SECONDS=$${STT_FUZZ_SECONDS:-600} .venv/bin/pytest -s tests/server/test_fuzz.py $(ARGS) || [ $$? = 5 ]

setup: venv ## Set up this machine for a stack, as `up` does first: the Pulumi CLI, Incus, a pool, the image
	@.venv/bin/python -m bootstrap.host $(STACK)

tools: venv ## Get what `preview` and `review` need: Python's packages and the Pulumi CLI
	@bootstrap/cli.sh >/dev/null

# Commands that only read set nothing up.
ready:
	@bootstrap/venv.sh --there requirements.txt

venv:
	@bootstrap/venv.sh requirements.txt

venv-dev:
	@bootstrap/venv.sh requirements.txt requirements-dev.txt
