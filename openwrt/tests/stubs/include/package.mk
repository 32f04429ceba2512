# Stands in for OpenWrt's package.mk: says what is asked of it, and has targets for the steps.
$(foreach needed,PKG_NAME PKG_VERSION PKG_RELEASE PKG_MAINTAINER PKG_LICENSE PKG_LICENSE_FILES PKG_BUILD_DEPENDS, \
  $(if $($(needed)),,$(error $(needed) must be set before package.mk is included)))
PKG_BUILD_DIR:=$(BUILD_DIR)/$(PKG_NAME)-$(PKG_VERSION)

# What OpenWrt does to a source that it has fetched itself.
define Build/Prepare
	echo unpacked $(PKG_SOURCE_VERSION)
endef

define BuildPackage
  $(foreach part,Package/$(1) Package/$(1)/description Package/$(1)/install Build/Compile, \
    $(if $(value $(part)),,$(error $(part) is not defined)))
  $(eval $(Package/$(1)))
  $(foreach needed,SECTION CATEGORY TITLE URL DEPENDS USERID,$(if $($(needed)),,$(error $(needed) is not set)))
prepare:
	$(Build/Prepare)
compile: prepare
	$(Build/Compile)
install: compile
	$(call Package/$(1)/install,$(OUT)/root)
dump:
	$$(info $(PKG_NAME) $(PKG_VERSION)-$(PKG_RELEASE) | $(SECTION) | $(DEPENDS) | $(USERID))
	$$(info $$(Package/$(1)/conffiles))
	@:
source:
	$$(info $$(strip $(PKG_SOURCE_PROTO) $(PKG_SOURCE_URL) $(PKG_SOURCE_VERSION) $(PKG_MIRROR_HASH)))
	@:
endef
