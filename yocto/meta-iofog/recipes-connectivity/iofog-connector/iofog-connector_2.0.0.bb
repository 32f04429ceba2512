SUMMARY = "Relay that joins outside users to agents behind NAT"
SUMMARY:${PN}-agent = "Services of the agent of an ioFog Connector"
DESCRIPTION = "The ioFog Connector runs where everybody can reach it. Agents behind NAT dial out to it, users \
               connect to its public ports, and it joins each user to a connection of the agent, or two agents \
               to each other."
HOMEPAGE = "https://iofog-connector.invalid/iofog-connector"
SECTION = "net"
CVE_PRODUCT = "iofog-connector"
# Of the program, and of the crates that are compiled in.
LICENSE = "EPL-2.0 & MIT & ISC & BSD-3-Clause & Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=2dd765ca47a05140be15ebafddbeadfe \
                    file://packaging/licences/crates;md5=192f3b040be9440e73646afb64660cb9 \
                    file://packaging/licences/Apache-2.0;md5=3b83ef96387f14655fc854ddc3c6bd57 \
                    "

# The layer is a folder of the program's own repository, and builds the checkout around it, unless a commit is named.
# nooelint: oelint.vars.fileextrapaths,oelint.vars.outofcontext
FILESEXTRAPATHS:prepend := "${THISDIR}/../../../..:"

IOFOG_CONNECTOR_SRCREV ?= ""
# nooelint: oelint.vars.mispell
IOFOG_CONNECTOR_GIT ?= "git://iofog-connector.invalid/iofog-connector.git;protocol=https;nobranch=1;destsuffix=${BP}"
# nooelint: oelint.vars.mispell
IOFOG_CONNECTOR_CHECKOUT = "file://Cargo.toml;subdir=${BP} \
                            file://Cargo.lock;subdir=${BP} \
                            file://LICENSE;subdir=${BP} \
                            file://src;subdir=${BP} \
                            file://packaging/common;subdir=${BP} \
                            file://packaging/licences;subdir=${BP} \
                            file://packaging/man;subdir=${BP} \
                            "

require ${BPN}-crates.inc
SRC_URI += "${@d.getVar('IOFOG_CONNECTOR_GIT' if d.getVar('IOFOG_CONNECTOR_SRCREV') else 'IOFOG_CONNECTOR_CHECKOUT')} \
            file://iofog-connector.init \
            file://iofog-connector-agent.init \
            "
SRCREV = "${IOFOG_CONNECTOR_SRCREV}"

inherit cargo cargo-update-recipe-crates systemd update-rc.d useradd

USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --home-dir /nonexistent --shell /bin/false iofog-connector; \
                       --system --user-group --no-create-home --home-dir /nonexistent --shell /bin/false iofog-connector-agent"

# The agent's services: on their own, because a device that has an agent rarely has a Connector. Without settings they
# start nothing.
PACKAGE_BEFORE_PN = "${PN}-agent"

INITSCRIPT_PACKAGES = "${PN} ${PN}-agent"
INITSCRIPT_NAME:${PN} = "iofog-connector"
INITSCRIPT_PARAMS:${PN} = "defaults 90 10"
INITSCRIPT_NAME:${PN}-agent = "iofog-connector-agent"
INITSCRIPT_PARAMS:${PN}-agent = "defaults 91 9"
SYSTEMD_PACKAGES = "${PN} ${PN}-agent"
SYSTEMD_SERVICE:${PN} = "iofog-connector.service"
SYSTEMD_SERVICE:${PN}-agent = "iofog-connector-agent.service"

do_install:append() {
    common=${S}/packaging/common
    install -D -m 0755 $common/prepare ${D}${libexecdir}/iofog-connector/prepare
    install -D -m 0644 $common/iofog-connector.conf ${D}${datadir}/iofog-connector/iofog-connector.conf
    install -D -m 0644 ${S}/packaging/man/iofog-connector.8 ${D}${mandir}/man8/iofog-connector.8
    install -D -m 0644 ${S}/packaging/man/iofog-connector.conf.5 ${D}${mandir}/man5/iofog-connector.conf.5
    install -D -m 0644 ${S}/packaging/man/iofog-connector-agent.conf.5 ${D}${mandir}/man5/iofog-connector-agent.conf.5
    install -m 0644 ${S}/packaging/man/iofog-connector-agent.json.5 ${D}${mandir}/man5/iofog-connector-agent.json.5
    # Passcodes are in it.
    install -d -m 0750 -o root -g iofog-connector-agent ${D}${sysconfdir}/iofog-connector-agent
    # Root's; its group tells `cert` who else may read a key.
    install -d -o root -g iofog-connector ${D}${sysconfdir}/iofog-connector
    install -m 0644 $common/iofog-connector.conf ${D}${sysconfdir}/iofog-connector/iofog-connector.conf

    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        install -D -m 0644 $common/iofog-connector.service ${D}${systemd_system_unitdir}/iofog-connector.service
        install -m 0644 $common/iofog-connector-agent.service ${D}${systemd_system_unitdir}/iofog-connector-agent.service
        install -m 0644 $common/iofog-connector-agent@.service ${D}${systemd_system_unitdir}/iofog-connector-agent@.service
        install -D -m 0644 $common/iofog-connector.tmpfiles ${D}${nonarch_libdir}/tmpfiles.d/iofog-connector.conf
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        install -D -m 0755 ${UNPACKDIR}/iofog-connector.init ${D}${sysconfdir}/init.d/iofog-connector
        install -D -m 0644 $common/iofog-connector.logrotate ${D}${sysconfdir}/logrotate.d/iofog-connector
        install -m 0755 ${UNPACKDIR}/iofog-connector-agent.init ${D}${sysconfdir}/init.d/iofog-connector-agent
        install -m 0644 $common/iofog-connector-agent.logrotate ${D}${sysconfdir}/logrotate.d/iofog-connector-agent
    fi
}

FILES:${PN}-agent += "${systemd_system_unitdir}/iofog-connector-agent*.service \
                      ${sysconfdir}/init.d/iofog-connector-agent \
                      ${sysconfdir}/logrotate.d/iofog-connector-agent \
                      "
FILES:${PN} += "${systemd_system_unitdir} ${nonarch_libdir}/tmpfiles.d"
CONFFILES:${PN} = "${sysconfdir}/iofog-connector/iofog-connector.conf"
RDEPENDS:${PN}-agent = "${PN}"
