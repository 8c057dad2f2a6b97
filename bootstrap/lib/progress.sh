# shellcheck shell=sh
# How far the building of an image is, by what debootstrap and apt-get say in the log.

# image_progress LOG SECONDS FETCHED: what there is to say after SECONDS of building; nothing at first.
# FETCHED: after how many seconds all packages had come; empty where they have not.
#
# debootstrap names each package when it retrieves, unpacks and configures it, and some when it extracts
# them. How many there are is known once all have come. What follows took two thirds of the rest of the
# time where it was measured; apt-get's updates and the packing took the last third.
image_progress() {
    awk -v seconds="$2" -v fetched="$3" '
        /^I: Retrieving / && NF > 3 { came++ }
        /^I: Extracting / { extracted++ }
        /^I: (Unpacking|Configuring) / { steps++ }
        /^I: Base system installed/ { based = 1 }
        /^[0-9]+ upgraded, / { updates = $1 }
        based && /^(Unpacking|Setting up) / { updated++ }
        function least(a, b) { return a < b ? a : b }
        function left(share,   rest) {
            if (fetched == "" || seconds - fetched < 10 || share < .1) return ""
            rest = (seconds - fetched) * (1 - share) / share
            if (rest < 90) return sprintf(", about %d s left", rest < 1 ? 1 : rest)
            return sprintf(", about %d min left", rest / 60 + .5)
        }
        END {
            if (!came) exit
            if (based && updates)
                printf "%d updates%s", updates, left(.66 + .3 * least(1, updated / (2 * updates)))
            else if (based)
                printf "%d packages are installed%s", came, left(.66)
            else if (extracted) {
                share = least(1, (extracted + steps) / (2 * came + (steps ? extracted : came / 2)))
                printf "%d %% of %d packages installed%s", 100 * share, came, left(.66 * share)
            } else
                printf "%d packages have come", came
        }' "$1"
}

# image_fetched LOG: whether all packages have come.
image_fetched() { grep -q '^I: Chosen extractor' "$1"; }
